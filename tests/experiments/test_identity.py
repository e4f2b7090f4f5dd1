"""Keys: equal for equal steps, different as soon as anything that matters differs."""

from collections.abc import Callable

import pytest
from kdplatform.experiments.identity import (
    Role,
    Step,
    distilled_step,
    run_key,
    student_step,
    teacher_seed,
    teacher_step,
)

from kdplatform.experiments import identity
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig

MakeStep = Callable[[ProjectConfig, int, str], Step]
STEPS: dict[str, MakeStep] = {
    "teacher": teacher_step,
    "student": student_step,
    "distilled": distilled_step,
}


def keys(seed: int = 0, digest: str = "d", **overrides: str) -> dict[str, str]:
    config = load_project("digits", {k.replace("__", "."): v for k, v in overrides.items()})
    return {role: make(config, seed, digest).key for role, make in STEPS.items()}


def changed(**how: str | int) -> set[str]:
    before, after = keys(), keys(**how)  # type: ignore[arg-type]
    return {role for role in STEPS if before[role] != after[role]}


@pytest.mark.parametrize(
    ("change", "roles"),
    [
        ({"teacher__epochs": "5"}, {"teacher", "distilled"}),
        ({"teacher__model": "resnet32"}, {"teacher", "distilled"}),
        ({"student__epochs": "5"}, {"student", "distilled"}),
        ({"student__augmentation__crop_padding": "1"}, {"student", "distilled"}),
        ({"temperature": "5"}, {"distilled"}),
        ({"alpha": "0.5"}, {"distilled"}),
        ({"distillation__scale_by_t2": "false"}, {"distilled"}),
        ({"seed": 1}, {"teacher", "student", "distilled"}),
        ({"digest": "other"}, {"teacher", "student", "distilled"}),
        # What a command is asked for besides decides no model's numbers.
        ({"name": "other"}, set()),
        ({"temperatures": "1,2"}, set()),
        ({"seeds": "0-4"}, set()),
        ({"temperature": "4.0"}, set()),
        # The teacher meant is the same one.
        ({"distillation__teacher_seed": "0"}, set()),
        ({"distillation__teacher_seed": "1"}, {"distilled"}),
    ],
)
def test_a_change_gives_new_keys_to_what_depends_on_it(
    change: dict[str, str | int], roles: set[str]
) -> None:
    assert changed(**change) == roles


def test_the_roles_never_share_a_key() -> None:
    same = {"student__model": "resnet20", "teacher__model": "resnet20"}
    config = load_project("digits", {k.replace("__", "."): v for k, v in same.items()})
    config = config.model_copy(update={"student": config.teacher})
    assert teacher_step(config, 0, "d").key != student_step(config, 0, "d").key


def test_a_key_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a change of the key's text, after which no old run would be found."""
    monkeypatch.setattr(identity, "STEP_VERSION", 1)
    key = run_key(Role.DISTILLED, {"b": [1, 2.5, None], "a": "é"}, "digest", ["x"])
    assert key == "07cec401d62199249488a0be3c26c095"


def test_the_order_of_settings_does_not_matter() -> None:
    one = run_key(Role.TEACHER, {"a": 1, "b": {"c": 2, "d": 3}}, "d")
    other = run_key(Role.TEACHER, {"b": {"d": 3, "c": 2}, "a": 1}, "d")
    assert one == other


def test_new_code_gives_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setattr(identity, "STEP_VERSION", identity.STEP_VERSION + 1)
    assert all(before[role] != key for role, key in keys().items())


def test_what_is_no_number_has_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_key(Role.TEACHER, {"a": float("nan")}, "d")


@pytest.mark.parametrize(("chosen", "teacher"), [("same", 3), ("0", 0), ("7", 7)])
def test_students_learn_from_the_teacher_chosen(chosen: str, teacher: int) -> None:
    config = load_project("digits", {"distillation.teacher_seed": chosen})
    assert teacher_seed(config, 3) == teacher


@pytest.mark.parametrize(
    ("role", "title"),
    [
        ("teacher", "Teacher resnet20 seed 2"),
        ("student", "NDS lenet5 seed 2"),
        ("distilled", "DS lenet5 T=4 alpha=0.8 seed 2"),
    ],
)
def test_a_step_is_named_by_what_it_trains(role: str, title: str) -> None:
    assert STEPS[role](load_project("digits"), 2, "d").title == title
