from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdplatform.data import load_dataset
from kdplatform.data.digits import Config
from kdplatform.errors import UserError
from kdplatform.settings.project import load_project


def test_images_are_those_of_scikit_learn_spread_over_all_bytes(tmp_path: Path) -> None:
    original = load_digits()
    for split in load_dataset(Config(), tmp_path).splits().values():
        assert split.inputs.dtype == torch.uint8
        assert split.inputs.shape[1:] == (1, 8, 8)
        levels = split.inputs[:, 0].double().numpy() * 16 / 255
        np.testing.assert_allclose(levels, original.images[split.ids], atol=0.04)
        np.testing.assert_array_equal(split.labels.numpy(), original.target[split.ids])


def test_every_image_is_in_exactly_one_split_of_the_size_asked_for(tmp_path: Path) -> None:
    splits = load_dataset(Config(val_fraction=0.1, test_fraction=0.3), tmp_path).splits()
    ids = np.concatenate([split.ids for split in splits.values()])
    assert sorted(ids) == list(range(1797))
    assert len(splits["val"]) == pytest.approx(179.7, abs=1)
    assert len(splits["test"]) == pytest.approx(539.1, abs=1)


def test_every_split_has_every_digit_in_its_share(tmp_path: Path) -> None:
    whole = np.bincount(load_digits().target) / 1797
    for split in load_dataset(Config(), tmp_path).splits().values():
        shares = np.bincount(split.labels.numpy(), minlength=10) / len(split)
        np.testing.assert_allclose(shares, whole, atol=1.5 / len(split))


def test_there_are_no_groups_and_the_columns_have_a_row_per_image(tmp_path: Path) -> None:
    dataset = load_dataset(Config(), tmp_path)
    assert dataset.attributes == ()
    assert dataset.class_names == tuple("0123456789")
    assert [len(split.columns) for split in dataset.splits().values()] == [1077, 270, 450]


@pytest.mark.parametrize("change", [{"seed": 2**40}, {"val_fraction": 0.2}, {"test_fraction": 0.2}])
def test_digest_follows_the_configuration(change: dict[str, float], tmp_path: Path) -> None:
    first = load_dataset(Config(), tmp_path)
    assert load_dataset(Config(), tmp_path).digest == first.digest
    changed = load_dataset(Config.model_validate(change), tmp_path)
    assert changed.digest != first.digest
    assert set(changed.train.ids) != set(first.train.ids)


@pytest.mark.parametrize(("field", "value"), [("test_fraction", "0.5"), ("val_fraction", "0")])
def test_fraction_out_of_range_is_one_line(field: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.{field}='{value}'.*>= 0\.02 and <= 0\.45$"):
        load_project("digits", {f"dataset.{field}": value})
