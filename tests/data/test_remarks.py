"""What a dataset holds, as a command says it before training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from kdplatform.data import Dataset, Split, remarks


def split(labels: Sequence[int], groups: Sequence[str | None], first: int) -> Split:
    count = len(labels)
    columns = pd.DataFrame({"sex": pd.Series(groups, dtype=object), "age": ["old"] * count})
    return Split(torch.zeros(count, 1), torch.tensor(labels), np.arange(count) + first, columns)


def dataset(classes: Sequence[str], labels: Sequence[int], groups: Sequence[str | None]) -> Dataset:
    parts = [split(labels, groups, 100 * number) for number in range(3)]
    return Dataset("people", "digest", tuple(classes), ("sex", "age"), *parts)


def test_splits_classes_and_groups_are_named_with_their_sizes() -> None:
    made = dataset(["no", "yes"], [0, 1, 0, 1, 1], ["m", "f", "f", "m", "m"])
    assert remarks(made, ["sex"]) == [
        "people: train 5, val 5, test 5 examples; 2 classes: no, yes",
        "people: sex, test: m 3, f 2",
        "people: attributes that are not compared: age",
    ]


def test_of_many_names_the_first_are_said() -> None:
    [first, *_, last] = remarks(dataset([f"class {n}" for n in range(9)], [0], ["m"]), [])
    assert last.endswith("not compared: sex, age; --attributes sex compares its groups")
    assert first.endswith("9 classes: class 0, class 1, class 2, class 3, class 4 and 4 more")


def test_examples_of_no_group_and_of_several_are_counted() -> None:
    made = dataset(["no", "yes"], [0, 1, 1, 1], ["f", "m + f", None, "m"])
    assert "people: sex, test: f 2, m 2, in no group 1" in remarks(made, ["sex"])


def test_a_group_without_positives_is_named_before_anything_trains() -> None:
    made = dataset(["no", "yes"], [0, 0, 0, 1], ["f", "f", "m", "m"])
    assert (
        "people: sex: test has no 'f' in class 'yes': a group without positives has no TPR, and an "
        "EOD needs two groups that have one" in remarks(made, ["sex"])
    )
    # Of two classes the positive one alone counts.
    made = dataset(["no", "yes"], [0, 1, 1, 1], ["f", "f", "m", "m"])
    assert not any("test has no" in line for line in remarks(made, ["sex"]))
    made = dataset(["a", "b", "c"], [0, 1, 2, 1, 2], ["f", "f", "f", "m", "m"])
    assert any("test has no 'm' in class 'a': " in line for line in remarks(made, ["sex"]))
