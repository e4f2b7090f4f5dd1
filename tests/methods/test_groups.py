"""Which groups and classes a method goes by, and what is refused before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.refusals import failure, refusal_of

from kdplatform.data import Dataset, Split
from kdplatform.experiments.graph import distilled_step
from kdplatform.experiments.steps import check_steps
from kdplatform.methods import (
    build_method,
    method_config_class,
    method_config_classes,
    method_names,
)
from kdplatform.methods._groups import class_counts, effective_weights, groups_of
from kdplatform.settings.project import load_project

LABELS = [0, 0, 0, 1, 1, 1]
ALONE = [name for name in method_names() if False in method_config_classes(name)]
COLUMNS = {
    "color": ["red", "blue", None, "blue", "red + blue", "red"],
    "shade": ["dark", "dark", None, "dark", "dark", "dark"],
    "kind": ["x", "x", "x", "y", "y", "y"],
}


def split(labels: Any = LABELS, columns: Any = COLUMNS) -> Split:
    ids = np.arange(len(labels))
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    return Split(images, torch.tensor(labels), ids, pd.DataFrame(columns))


def dataset(*attributes: str, val: Split | None = None) -> Dataset:
    train = split()
    return Dataset("digits", "0", ("no", "yes"), attributes, train, val or train, train)


def refusal(name: str, data: Dataset, **fields: Any) -> str:
    config = method_config_class(name).model_validate(fields)
    return refusal_of(build_method(config).check, data)


# ---- groups


def test_groups_are_numbered_by_name_and_none_is_minus_one() -> None:
    groups = groups_of(split(), "color")
    assert groups.names == ("blue", "red", "red + blue")
    assert groups.of(split()).tolist() == [1, 0, -1, 0, 2, 1]
    assert groups.of(split()).dtype == torch.int64
    assert groups.sizes.tolist() == [2, 2, 1]


def test_groups_of_another_split_have_the_same_numbers() -> None:
    other = split([0, 1, 0], {"color": ["red", "green", None]})
    assert groups_of(split(), "color").of(other).tolist() == [1, -1, -1]


def test_classes_are_groups_too() -> None:
    groups = groups_of(split(), "label")
    assert groups.of(split()).tolist() == LABELS
    assert groups.sizes.tolist() == class_counts(split()).tolist() == [3, 3]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9999, 1 - 1e-12])
def test_the_effective_number_rises_from_1_to_all(beta: float) -> None:
    counts = torch.tensor([1, 10, 1000])
    numbers = 1 / effective_weights(counts, beta)
    # 1 + beta + ... + beta^(n - 1).
    expected = [sum(beta**k for k in range(n)) for n in counts.tolist()]
    np.testing.assert_allclose(numbers, expected, rtol=1e-4)


def test_the_groups_are_said_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    build_method(method_config_class("group_dro")(attribute="color")).check(dataset("color"))
    assert capsys.readouterr().err == (
        "groups of color in training: blue 2, red 2, red + blue 1, in no group 1; an example in "
        "several is in a group of its own\n"
    )


# ---- refusals

BY_GROUPS = ["group_dro", "reweighing", "group_temperature", "adaptive_alpha", "adaptive_margin"]


@pytest.mark.parametrize("name", BY_GROUPS)
def test_an_attribute_must_be_there_and_have_two_groups(name: str) -> None:
    data = dataset("color", "shade")
    assert refusal(name, data, attribute="colour") == (
        "attribute='colour' does not exist; did you mean 'color'? known: color, shade"
    )
    assert refusal(name, data, attribute="shade") == (
        "attribute='shade' has one group ('dark') in the training split; allowed: an attribute "
        "with at least two, or 'label' for the classes"
    )
    assert refusal(name, dataset(), attribute="color") == (
        f"method='{name}' uses groups, and dataset digits has no attributes; allowed: data with "
        "attributes, or attribute='label' for the classes as groups"
    )


@pytest.mark.parametrize("attribute", ["label", "kind"])
def test_groups_that_are_the_classes_cannot_be_made_independent_of_them(attribute: str) -> None:
    assert refusal("reweighing", dataset("kind"), attribute=attribute) == (
        f"attribute='{attribute}' is the class in the training split, and method='reweighing' "
        "makes groups independent of it; allowed: attributes whose groups hold several classes"
    )


def test_temperatures_are_those_of_groups_that_are_there_and_in_range() -> None:
    data = dataset("color")
    fields = {"attribute": "color"}
    message = refusal("group_temperature", data, **fields, group_temperatures="reds=2")
    assert message.startswith(
        "distillation.group_temperatures='reds' does not exist; did you mean 'red'"
    )
    message = refusal("group_temperature", data, **fields, temperature=1e6, power=2)
    assert message == (
        "distillation.power=2 gives group 'red + blue' the temperature 2.77778e+06; allowed: "
        "0.000001 to 1000000"
    )


@pytest.mark.parametrize("given", ["0", "0/0,1", "0/1/2", "1/2"])
def test_strata_hold_every_class_once(given: str) -> None:
    assert refusal("group_stratified", dataset(), given=given) == (
        f"distillation.given={given!r} is not allowed; allowed: every class once, numbers 0 to 1"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--method", "group_temperature", "--distillation.group_temperatures", "red=0"],
            "distillation.group_temperatures='red=0' is not allowed: 'red=0' is no "
            "group=temperature, from 0.000001 to 1000000; allowed: list of text",
        ),
        (
            ["--method", "group_stratified", "--distillation.given", "0-/1"],
            "distillation.given='0-/1' is not allowed: '0-' is neither a number nor a range such "
            "as 0-4; allowed: text",
        ),
        (
            ["--method", "cvar", "--distillation.share", "0"],
            "distillation.share='0' is not allowed; allowed: number > 0 and <= 1",
        ),
        (
            ["--method", "class_balanced", "--distillation.beta", "1"],
            "distillation.beta='1' is not allowed; allowed: number >= 0 and < 1",
        ),
        (
            ["--method", "group_dro", "--distillation.attribute", "hue"],
            "distillation.attribute='hue' does not exist; known: color, texture",
        ),
        (
            ["--teacher.method", "reweighing", "--teacher.method.attribute", "colour"],
            "teacher.method.attribute='colour' does not exist; did you mean 'color'? known: color,"
            " texture",
        ),
        (
            ["--teacher.method", "cvar"],
            f"teacher.method='cvar' learns from a teacher; allowed: {', '.join(ALONE)}",
        ),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = ["--data_folder", str(tmp_path)]
    assert failure(["distill", "--project", "trifeature", *folder, *words], capsys) == (2, line)


# ---- before anything is trained


def test_methods_look_at_the_data_before_training_and_speak_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = load_project("trifeature", {"method": "group_dro"})
    workspace: Any = SimpleNamespace(dataset=dataset("color"), config=project, processes=1)
    methods = [project.distillation.at(temperature=t) for t in (1.0, 4.0)]
    steps = [
        distilled_step(project.model_copy(update={"distillation": method}), 0, "0")
        for method in methods
    ]
    check_steps(workspace, steps)
    assert len(capsys.readouterr().err.splitlines()) == 1
    workspace.dataset = dataset("kind")
    assert refusal_of(check_steps, workspace, steps) == (
        "attribute='color' does not exist; known: kind"
    )


def test_what_has_no_validation_example_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset("color", val=split([0, 0], {"color": ["red", "blue"]}))
    build_method(method_config_class("adaptive_alpha")(attribute="color")).check(data)
    assert capsys.readouterr().err.splitlines()[1] == (
        "without validation examples, the overall mean margin counts for: 'red + blue'"
    )
    build_method(method_config_class("adaptive_margin")(attribute="label")).check(data)
    assert capsys.readouterr().err.splitlines() == [
        "without validation examples, the overall mean margin counts for: 'yes'"
    ]


def test_strata_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    build_method(method_config_class("group_stratified")()).check(dataset())
    assert capsys.readouterr().err == (
        "strata of classes in training: 1 with 3 examples; 1 with 3 examples\n"
    )
