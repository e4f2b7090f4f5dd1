"""Examples as people look at them: a small picture, a text, or the cells of a row."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.dataset_files import people
from PIL import Image

from kdplatform.data import Dataset, Split, Vocabulary, load_dataset
from kdplatform.data._previews import previews
from kdplatform.data._tokens import padded, trained_tokenizer
from kdplatform.data.table import Config


def dataset(inputs: torch.Tensor, vocabulary: Vocabulary | None = None) -> Dataset:
    n = len(inputs)
    columns = pd.DataFrame({"color": ["red"] * n})
    split = Split(inputs, torch.zeros(n, dtype=torch.int64), np.arange(n), columns)
    return Dataset("any", "0" * 64, ("a", "b"), (), split, split, split, vocabulary)


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((1, 8, 8), "PNG", (8, 8)),
        ((3, 32, 32), "PNG", (32, 32)),
        ((3, 200, 100), "JPEG", (48, 96)),
    ],
)
def test_an_image_is_a_small_picture(
    shape: tuple[int, ...], kind: str, size: tuple[int, int]
) -> None:
    images = torch.randint(0, 255, (4, *shape), dtype=torch.uint8)
    [first, second] = previews(dataset(images), np.array([2, 0]))
    picture = Image.open(io.BytesIO(first.image))
    assert (picture.format, picture.size) == (kind, size)
    if kind == "PNG":
        own = images[2].permute(1, 2, 0).squeeze(-1).numpy()
        np.testing.assert_array_equal(np.asarray(picture), own)
    assert first.image != second.image


def test_tokens_are_read_as_a_text_again(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = ["the kindest words of all", "rude, unkind words"]
    tokenizer = trained_tokenizer(texts, 200, tmp_path)
    ids = padded(tokenizer.encode(texts, 30), 30)
    found = previews(dataset(ids, tokenizer.vocabulary), np.array([0, 1]))
    assert [each.text for each in found] == ["the kindest words of all", "rude , unkind words"]


def test_a_row_has_the_cells_of_its_file(tmp_path: Path) -> None:
    table = people()
    table.to_csv(tmp_path / "people.csv", index=False)
    fields = {"file": str(tmp_path / "people.csv"), "label": "income", "attributes": "sex,region"}
    loaded = load_dataset(Config(**fields), tmp_path)
    [found] = previews(loaded, np.array([3]))
    row = table.iloc[int(loaded.test.ids[3])].drop("income")
    assert [name for name, _ in found.cells] == list(row.index)
    assert dict(found.cells)["sex"] == row["sex"]


def test_other_examples_have_the_columns_of_their_split() -> None:
    [found] = previews(dataset(torch.zeros(2, 5)), np.array([1]))
    assert found.cells == (("color", "red"),)
