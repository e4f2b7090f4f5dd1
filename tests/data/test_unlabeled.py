from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dataset_files import write_image

from kdplatform.data import Dataset, StreamedInputs, load_dataset
from kdplatform.data.digits import Config as Digits
from kdplatform.data.imagefolder import Config as ImageFolder
from kdplatform.data.trifeature import Config as Trifeature
from kdplatform.errors import UserError
from kdplatform.settings.project import load_project


def digits(tmp_path: Path, **fields: Any) -> Dataset:
    return load_dataset(Digits(**fields), tmp_path)


def test_a_share_of_training_loses_its_labels_and_nothing_else_changes(tmp_path: Path) -> None:
    whole, part = digits(tmp_path), digits(tmp_path, unlabeled_fraction=0.3)
    assert part.unlabeled is not None
    assert len(part.unlabeled) == round(0.3 * len(whole.train))
    both = np.concatenate([part.train.ids, part.unlabeled.ids])
    assert sorted(both) == sorted(whole.train.ids)
    row_of = {number: row for row, number in enumerate(whole.train.ids.tolist())}
    for split in (part.train, part.unlabeled):
        rows = torch.tensor([row_of[number] for number in split.ids.tolist()])
        assert torch.equal(torch.as_tensor(split.inputs), torch.as_tensor(whole.train.inputs)[rows])
    labels = [whole.train.labels[row_of[number]] for number in part.train.ids.tolist()]
    assert part.train.labels.tolist() == labels
    for name in ("val", "test"):
        assert part.splits()[name].ids.tolist() == whole.splits()[name].ids.tolist()
    assert list(part.splits()) == ["train", "val", "test"]


def test_hidden_labels_are_minus_one(tmp_path: Path) -> None:
    hidden = digits(tmp_path, unlabeled_fraction=0.3).unlabeled
    assert hidden is not None
    assert hidden.labels.dtype == torch.int64
    assert set(hidden.labels.tolist()) == {-1}


def test_no_column_tells_a_hidden_label(tmp_path: Path) -> None:
    fields = {"image_size": 8, "values_per_feature": 2, "versions_train": 2}
    hidden = load_dataset(Trifeature(**fields, unlabeled_fraction=0.5), tmp_path).unlabeled
    assert hidden is not None
    assert list(hidden.columns) == ["color", "texture"]
    assert len(hidden.columns) == len(hidden)


def test_the_choice_follows_its_seed_and_the_digest_follows_the_choice(tmp_path: Path) -> None:
    whole, some = digits(tmp_path), digits(tmp_path, unlabeled_fraction=0.3)
    again = digits(tmp_path, unlabeled_fraction=0.3)
    more = digits(tmp_path, unlabeled_fraction=0.4)
    other = digits(tmp_path, unlabeled_fraction=0.3, unlabeled_seed=1)
    assert again.digest == some.digest
    assert len({whole.digest, some.digest, more.digest, other.digest}) == 4
    assert other.train.ids.tolist() != some.train.ids.tolist()
    # Without hidden labels there is nothing to choose.
    assert digits(tmp_path, unlabeled_seed=1).digest == whole.digest
    assert whole.unlabeled is None


def test_channel_statistics_are_those_of_the_labelled_part(tmp_path: Path) -> None:
    part = digits(tmp_path, unlabeled_fraction=0.9)
    mean, std = part.channel_statistics
    pixels = torch.as_tensor(part.train.inputs).double() / 255
    assert mean.item() == pytest.approx(pixels.mean().item())
    assert std.item() == pytest.approx(pixels.std(correction=0).item())
    whole, _ = digits(tmp_path).channel_statistics
    assert mean.item() != pytest.approx(whole.item(), rel=1e-5)


def test_streamed_images_are_hidden_like_those_in_memory(tmp_path: Path) -> None:
    for number in range(24):
        write_image(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", number)

    def load(storage: str) -> Dataset:
        fields = {"root": str(tmp_path / "images"), "image_size": 8, "workers": 0}
        config = ImageFolder(**fields, storage=storage, unlabeled_fraction=0.5)
        return load_dataset(config, tmp_path / "data")

    memory, stream = load("memory"), load("stream")
    assert memory.digest == stream.digest
    for name in ("train", "unlabeled"):
        ours, theirs = getattr(memory, name), getattr(stream, name)
        assert isinstance(theirs.inputs, StreamedInputs)
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert torch.equal(ours.inputs, theirs.inputs[:])


def test_every_class_keeps_a_label(tmp_path: Path) -> None:
    message = (
        r"^dataset\.unlabeled_fraction=0\.999 leaves 9 of 10 classes without a labelled training "
        r"example \('\d'\); allowed: at least one of every class, .*dataset\.unlabeled_seed$"
    )
    with pytest.raises(UserError, match=message):
        digits(tmp_path, unlabeled_fraction=0.999)


@pytest.mark.parametrize("value", ["1", "-0.1", "all"])
def test_a_share_is_at_least_0_and_below_1(value: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.unlabeled_fraction='{value}' is not allowed"):
        load_project("digits", {"dataset.unlabeled_fraction": value})
