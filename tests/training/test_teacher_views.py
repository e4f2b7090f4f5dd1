import pytest
import torch
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.settings.schema import AugmentationConfig, TrainingConfig
from kdplatform.training import Teacher, TeacherTable, initialised_model, view_logits
from kdplatform.training.batches import (
    Changes,
    TrainingBatches,
    draw_changes,
    view_changes,
    view_count,
    view_numbers,
)

CPU = torch.device("cpu")
AUGMENTATIONS = [
    AugmentationConfig(crop_padding=4, horizontal_flip=True),
    AugmentationConfig(crop_padding=1, horizontal_flip=False),
    AugmentationConfig(crop_padding=0, horizontal_flip=True),
]


def named(augmentation: AugmentationConfig) -> str:
    return f"crop{augmentation.crop_padding}-flip{augmentation.horizontal_flip}"


each_augmentation = pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=named)


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> nn.Module:
    return initialised_model("lenet5", dataset, seed=0, role="teacher").eval()


def table(teacher: nn.Module, dataset: Dataset, augmentation: AugmentationConfig) -> Tensor:
    views = view_logits(teacher, dataset.train.inputs, augmentation, device=CPU, batch_size=32)
    return torch.stack(list(views), dim=1)


def test_crop_of_four_pixels_and_flip_make_162_views():
    assert view_count(AUGMENTATIONS[0]) == 162


@each_augmentation
def test_every_view_has_a_number_of_its_own(augmentation):
    numbers = [
        int(view_numbers(view_changes(view, 1, augmentation, CPU), augmentation))
        for view in range(view_count(augmentation))
    ]
    assert numbers == list(range(view_count(augmentation)))


@each_augmentation
def test_changes_drawn_in_training_are_the_changes_of_their_numbers(augmentation):
    drawn = draw_changes(500, augmentation, torch.Generator().manual_seed(0))
    numbers = view_numbers(drawn, augmentation)
    assert set(numbers.tolist()) <= set(range(view_count(augmentation)))
    for row, number in enumerate(numbers.tolist()):
        view = view_changes(number, 1, augmentation, CPU)
        mine = Changes(drawn.top[row], drawn.left[row], drawn.flipped[row])
        assert (view.top, view.left, view.flipped) == (mine.top, mine.left, mine.flipped)


@each_augmentation
def test_table_of_views_says_what_the_teacher_says_up_to_half_precision(
    dataset, teacher, augmentation
):
    views = TeacherTable(table(teacher, dataset, augmentation).half())
    asked = Teacher(None, lambda: teacher)
    config = TrainingConfig(
        model="lenet5", epochs=1, learning_rate=1.0, batch_size=16, augmentation=augmentation
    )
    generator = torch.Generator().manual_seed(1)
    batches = TrainingBatches(dataset.train, config, device=CPU, generator=generator)
    for batch in batches.epoch():
        expected = asked(batch).logits
        assert views(batch).dtype == torch.float32
        torch.testing.assert_close(views(batch), expected, rtol=2**-11, atol=1e-5)


def test_views_of_an_example_differ(dataset, teacher):
    logits = table(teacher, dataset, AUGMENTATIONS[0])
    assert logits.std(dim=1).mean() > 1e-3


def test_inputs_that_never_change_have_no_view(dataset):
    config = TrainingConfig(model="lenet5", epochs=1, learning_rate=1.0, batch_size=16)
    generator = torch.Generator().manual_seed(1)
    batches = TrainingBatches(dataset.train, config, device=CPU, generator=generator)
    assert all(batch.views is None for batch in batches.epoch())
