"""The gallery shows the examples on whose change most models agree, of every class and group."""

import numpy as np
import pandas as pd

from kdplatform.predictions import Predictions
from kdplatform.reporting.changed_examples import gallery_of
from kdplatform.reporting.gallery import Shown
from kdplatform.reporting.pairs import Pair

CLASSES = ("cat", "dog")


def table(wrong: list[int], n: int = 8) -> Predictions:
    labels = np.arange(n) % 2
    return Predictions.of(
        pd.DataFrame(
            {
                "id": np.arange(n) + 100,
                "label": labels,
                "prediction": [1 - y if row in wrong else y for row, y in enumerate(labels)],
                "sex": ["f", "f", "m", "m"] * (n // 4),
            }
        )
    )


def pair(a: list[list[int]], b: list[list[int]], n: int = 8) -> Pair:
    sides = [[table(wrong, n) for wrong in side] for side in (a, b)]
    return Pair("", ("Teacher", "DS"), ("Teacher", "DS"), sides[0], sides[1], CLASSES, None, None)


def test_examples_are_counted_and_ordered_by_agreement() -> None:
    found = gallery_of(pair([[], [], [7]], [[0, 1], [0, 2], [0]]), ["sex"], {})
    first = found.examples[0]
    assert (first.id, first.direction, first.models, first.pairs) == (
        "100",
        "only Teacher is right",
        3,
        3,
    )
    assert (first.label, first.predicted, first.groups) == ("cat", "dog", {"sex": "f"})
    assert {e.id: e.models for e in found.examples} == {"100": 3, "101": 1, "102": 1, "107": 1}
    # Most pairs of models agree on one change alone.
    assert found.counts == {"only Teacher is right": 1, "only DS is right": 0}
    assert [e.direction for e in found.examples if e.id == "107"] == ["only DS is right"]


def test_every_class_and_group_has_its_turn() -> None:
    n = 400
    wrong = [row for row in range(n) if row % 4 == 0 or row in (1, 2, 3)]
    found = gallery_of(pair([[]], [wrong], n), ["sex"], {})
    assert len(found.examples) == 24
    assert {(e.label, e.groups["sex"]) for e in found.examples} == {
        *(("cat", "f"), ("dog", "f"), ("cat", "m"), ("dog", "m"))
    }


def test_sides_without_pairs_are_held_against_each_other_whole() -> None:
    found = gallery_of(pair([[]], [[0], [0], [1]]), ["sex"], {})
    assert {e.id: (e.models, e.pairs) for e in found.examples} == {"100": (2, 3), "101": (1, 3)}


def test_what_runs_logged_is_shown_first_and_columns_otherwise() -> None:
    previews = {"101": Shown(text="a text")}
    found = gallery_of(pair([[]], [[0, 1]]), ["sex"], previews)
    assert [(e.id, e.shown.text) for e in found.examples] == [("101", "a text")]
    found = gallery_of(pair([[]], [[0, 1]]), ["sex"], {})
    assert found.examples[0].shown.cells == [("sex", "f")]
    assert found.columns == ["sex"]
    assert any("No run has logged" in note for note in found.notes)


def test_images_stay_within_their_room() -> None:
    previews = {str(100 + row): Shown(image="x" * 100_000) for row in range(8)}
    assert len(gallery_of(pair([[]], [list(range(8))]), ["sex"], previews).examples) == 6


def test_a_pair_that_agrees_says_so() -> None:
    found = gallery_of(pair([[]], [[]]), ["sex"], {})
    assert found.examples == []
    assert found.notes == ["No example is right on one side only."]
