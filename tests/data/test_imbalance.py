from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdplatform.data import Dataset, load_dataset, remarks
from kdplatform.data._imbalance import with_imbalance
from kdplatform.data.digits import Config as Digits
from kdplatform.data.trifeature import Config as Trifeature
from kdplatform.errors import UserError
from kdplatform.settings.project import load_project


def digits(tmp_path: Path, **fields: Any) -> Dataset:
    return load_dataset(Digits(**fields), tmp_path)


def class_sizes(dataset: Dataset) -> list[int]:
    return dataset.train.labels.bincount().tolist()


def test_class_frequencies_fall_exponentially_to_the_ratio(tmp_path: Path) -> None:
    fields = {"image_size": 8, "values_per_feature": 3, "versions_train": 12}
    whole = load_dataset(Trifeature(**fields), tmp_path)
    tailed = load_dataset(Trifeature(**fields, imbalance=4), tmp_path)
    assert class_sizes(whole) == [108, 108, 108]
    assert class_sizes(tailed) == [108, 54, 27]


def test_unequal_classes_fall_exponentially_too(tmp_path: Path) -> None:
    whole = digits(tmp_path)
    sizes = np.array(class_sizes(digits(tmp_path, imbalance=10)))
    falling = 10.0 ** (-np.arange(10) / 9)
    # Within the rounding of one curve, below which at least one class was used up.
    assert np.abs(sizes - sizes[0] * falling).max() < 1.5
    largest = min(size / share for size, share in zip(class_sizes(whole), falling, strict=True))
    assert sizes[0] == round(largest)


def test_only_training_examples_are_left_out(tmp_path: Path) -> None:
    whole, tailed = digits(tmp_path), digits(tmp_path, imbalance=10)
    for name in ("val", "test"):
        assert tailed.splits()[name].ids.tolist() == whole.splits()[name].ids.tolist()
    row_of = {number: row for row, number in enumerate(whole.train.ids.tolist())}
    rows = torch.tensor([row_of[number] for number in tailed.train.ids.tolist()])
    assert (rows.diff() > 0).all()
    assert torch.equal(torch.as_tensor(tailed.train.inputs), whole.train.inputs[rows])
    assert torch.equal(tailed.train.labels, whole.train.labels[rows])
    assert len(tailed.train.columns) == len(tailed.train)


def test_the_choice_follows_its_seed_and_the_digest_follows_the_choice(tmp_path: Path) -> None:
    whole, some = digits(tmp_path), digits(tmp_path, imbalance=10)
    more, other = digits(tmp_path, imbalance=20), digits(tmp_path, imbalance=10, imbalance_seed=1)
    assert digits(tmp_path, imbalance=10).digest == some.digest
    assert len({whole.digest, some.digest, more.digest, other.digest}) == 4
    assert class_sizes(other) == class_sizes(some)
    assert digits(tmp_path, imbalance=1, imbalance_seed=1).digest == whole.digest


def test_labels_are_hidden_of_what_the_tail_leaves(tmp_path: Path) -> None:
    tailed = digits(tmp_path, imbalance=10)
    both = digits(tmp_path, imbalance=10, unlabeled_fraction=0.3)
    assert both.unlabeled is not None
    ids = np.concatenate([both.train.ids, both.unlabeled.ids])
    assert sorted(ids) == sorted(tailed.train.ids)
    assert both.digest != tailed.digest


def test_unequal_classes_are_said(tmp_path: Path) -> None:
    tailed = digits(tmp_path, imbalance=10)
    largest, smallest = max(class_sizes(tailed)), min(class_sizes(tailed))
    line = f"digits: training examples of a class: {smallest} to {largest}"
    assert line in remarks(tailed, [])
    assert not any("of a class" in line for line in remarks(digits(tmp_path), []))


def test_every_class_keeps_an_example(tmp_path: Path) -> None:
    message = (
        r"^dataset\.imbalance=1000 leaves 3 of 10 classes without a training example "
        r"\('7'\); allowed: a smaller ratio, which leaves every class at least one$"
    )
    with pytest.raises(UserError, match=message):
        with_imbalance(digits(tmp_path), 1000, 0)


@pytest.mark.parametrize("value", ["0.5", "-1", "long"])
def test_a_ratio_is_at_least_1(value: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.imbalance='{value}' is not allowed; allowed"):
        load_project("digits", {"dataset.imbalance": value})
