"""What a study costs: the table of the docs is what the computation says, and it adds up."""

from pathlib import Path

import pytest

from benchmarks.scale import INFERENCE, SIZES, TRAINING, cost, table

DOCS = Path(__file__).resolve().parent.parent / "docs" / "scale.md"


def test_the_page_has_the_table_that_is_computed() -> None:
    assert "\n".join(table()) in DOCS.read_text()


def test_hours_are_images_over_rates() -> None:
    images = 1_281_167 - round(0.02 * 1_281_167)
    alone = 90 * images / TRAINING["resnet18"]
    teacher = 90 * images / INFERENCE["resnet50"]
    assert cost("imagenet").hours == pytest.approx((70 * alone + 65 * teacher) / 3600)


def test_models_are_students_ndss_and_teachers() -> None:
    assert {name: cost(name).models for name in SIZES} == {
        "imagenet": 65 + 5 + 1,
        "imagenet_vit": 65 + 5 + 1,
        "cifar100": 65 + 5 + 5,
    }


def test_a_table_of_views_has_a_row_per_example_and_view() -> None:
    # 45,000 examples, 9 x 9 crops, two flips, 100 classes, half precision, five teachers.
    assert cost("cifar100").table_bytes == 5 * 45_000 * 81 * 2 * 100 * 2
