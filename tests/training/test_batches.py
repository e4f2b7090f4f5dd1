from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.settings.schema import AugmentationConfig, TrainingConfig
from kdplatform.training.batches import (
    TrainingBatches,
    crop_and_flip,
    draw_changes,
    pad_images,
)

CPU = torch.device("cpu")


def make_batches(split: Split, seed: int = 0, **fields: Any) -> TrainingBatches:
    config = TrainingConfig(
        model="lenet5",
        epochs=1,
        learning_rate=1.0,
        channels_last=fields.pop("channels_last", True),
        batch_size=fields.pop("batch_size", 16),
        augmentation=AugmentationConfig(**fields),
    )
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatches(split, config, device=CPU, generator=generator)


def naive_crop_and_flip(image: Tensor, padding: int, top: int, left: int, flip: bool) -> Tensor:
    """Pixel by pixel: what the indexing operation has to equal."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                source_y = y + top - padding
                source_x = (width - 1 - x if flip else x) + left - padding
                if 0 <= source_y < height and 0 <= source_x < width:
                    result[c, y, x] = image[c, source_y, source_x]
    return result


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("horizontal_flip", [False, True])
def test_augmentation_equals_the_naive_loop(padding: int, horizontal_flip: bool) -> None:
    # Height and width differ, so that neither can stand for the other.
    images = torch.randint(1, 256, (7, 3, 5, 6), dtype=torch.uint8)
    config = AugmentationConfig(crop_padding=padding, horizontal_flip=horizontal_flip)
    changes = draw_changes(9, config, torch.Generator().manual_seed(1))
    rows = torch.tensor([0, 6, 3, 3, 1, 2, 5, 4, 0])
    padded = pad_images(images, padding).permute(0, 2, 3, 1).contiguous()
    augmented = crop_and_flip(padded, rows, changes, padding)
    expected = [
        naive_crop_and_flip(images[row], padding, int(top), int(left), bool(flip))
        for row, top, left, flip in zip(
            rows, changes.top, changes.left, changes.flipped, strict=True
        )
    ]
    assert torch.equal(augmented, torch.stack(expected))
    assert augmented.is_contiguous(memory_format=torch.channels_last)


def test_every_crop_is_drawn_and_half_are_flipped() -> None:
    config = AugmentationConfig(crop_padding=2, horizontal_flip=True)
    changes = draw_changes(5000, config, torch.Generator().manual_seed(0))
    places = torch.stack([changes.top, changes.left]).unique(dim=1)
    assert places.shape == (2, 25)
    assert changes.flipped.float().mean() == pytest.approx(0.5, abs=0.03)


def test_nothing_is_flipped_unless_asked_for() -> None:
    config = AugmentationConfig(crop_padding=2, horizontal_flip=False)
    assert not draw_changes(100, config, torch.Generator()).flipped.any()


@pytest.mark.parametrize("augmentation", [{}, {"crop_padding": 1, "horizontal_flip": True}])
@pytest.mark.parametrize("channels_last", [True, False])
def test_an_epoch_sees_every_example_once(
    dataset: Dataset, augmentation: dict[str, Any], channels_last: bool
) -> None:
    batches = list(make_batches(dataset.train, channels_last=channels_last, **augmentation).epoch())
    rows = torch.cat([batch.rows for batch in batches])
    assert rows.sort().values.tolist() == list(range(50))
    assert rows.tolist() != list(range(50))
    for batch in batches:
        assert torch.equal(batch.labels, dataset.train.labels[batch.rows])
        assert batch.ids.tolist() == dataset.train.ids[batch.rows.numpy()].tolist()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.inputs.is_contiguous(memory_format=layout)
        if not augmentation:
            assert torch.equal(batch.inputs, dataset.train.inputs[batch.rows])


# 50 divided by 16 leaves a remainder of 2; 7 by 8 is less than one batch; 4 by 2 has no remainder.
@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(50, 16, [13, 13, 12, 12]), (7, 8, [7]), (4, 2, [2, 2])]
)
def test_steps_are_few_and_equal(count: int, batch_size: int, sizes: list[int]) -> None:
    split = Split(
        torch.zeros(count, 3),
        torch.zeros(count, dtype=torch.int64),
        np.arange(count, dtype=np.int64),
        pd.DataFrame(index=range(count)),
    )
    batches = make_batches(split, batch_size=batch_size)
    assert batches.steps == len(sizes)
    assert [len(batch.rows) for batch in batches.epoch()] == sizes


def test_order_depends_on_the_generator_and_changes_with_the_epoch(dataset: Dataset) -> None:
    def orders(seed: int) -> list[list[int]]:
        batches = make_batches(dataset.train, seed, batch_size=50)
        return [next(batches.epoch()).rows.tolist() for _ in range(2)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


def test_augmenting_what_is_no_image_is_refused() -> None:
    split = Split(
        torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), np.arange(4), pd.DataFrame()
    )
    with pytest.raises(UserError, match=r"augmentation allowed: for images alone; .*\(3,\)"):
        make_batches(split, horizontal_flip=True)


def test_another_view_is_of_the_same_examples_and_drawn_apart() -> None:
    images = torch.randint(1, 256, (20, 3, 5, 6), dtype=torch.uint8)
    split = Split(images, torch.arange(20) % 4, np.arange(20), pd.DataFrame(index=range(20)))
    [one] = make_batches(split, crop_padding=2, batch_size=20).epoch()
    batches = make_batches(split, crop_padding=2, batch_size=20)
    [batch] = batches.epoch()
    other = batches.another_view(batch, torch.Generator().manual_seed(9))
    assert torch.equal(batch.views, one.views)
    assert other.inputs_are_the_loops
    assert torch.equal(other.rows, batch.rows)
    assert torch.equal(other.labels, batch.labels)
    assert not torch.equal(other.views, batch.views)
    for row in range(20):
        top, left = divmod(int(other.views[row]), 5)
        expected = naive_crop_and_flip(images[other.rows[row]], 2, top, left, False)
        assert torch.equal(other.inputs[row], expected)
