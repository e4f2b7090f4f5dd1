"""Keys: equal for equal steps, different as soon as anything that matters differs."""

import hashlib
from typing import Literal

import pytest
from helpers.known_keys import KNOWN_KEYS, STEPS, digits_keys, keys_of
from pydantic import Field

from kdplatform.experiments import graph
from kdplatform.experiments.graph import (
    TEACHER,
    distilled_step,
    run_key,
    student_step,
    study_steps,
    teacher_step,
    with_needs,
)
from kdplatform.methods import kd
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import (
    NEUTRAL,
    DistillationConfig,
    MethodConfig,
    ProjectConfig,
    TrainingConfig,
)

# Another value for each field of its own that kd has.
OTHER_VALUES = {"temperature": "5", "alpha": "0.5", "scale_by_t2": "false"}


def keys(seed: int = 0, digest: str = "digits", **overrides: str) -> dict[str, str]:
    config = load_project("digits", {k.replace("__", "."): v for k, v in overrides.items()})
    return keys_of(config, seed, digest)


def changed(**how: str | int) -> set[str]:
    before, after = keys(), keys(**how)  # type: ignore[arg-type]
    return {role for role in STEPS if before[role] != after[role]}


def with_student(training: TrainingConfig) -> ProjectConfig:
    return load_project("digits").model_copy(update={"student": training})


def with_distillation(distillation: DistillationConfig) -> ProjectConfig:
    return load_project("digits").model_copy(update={"distillation": distillation})


def test_known_keys_stay_as_they_are() -> None:
    assert digits_keys() == KNOWN_KEYS


@pytest.mark.parametrize(
    ("change", "roles"),
    [
        ({"teacher__epochs": "5"}, {"teacher", "distilled"}),
        ({"teacher__model": "resnet32"}, {"teacher", "distilled"}),
        ({"student__epochs": "5"}, {"student", "distilled"}),
        ({"student__augmentation__crop_padding": "1"}, {"student", "distilled"}),
        ({"seed": 1}, {"teacher", "student", "distilled"}),
        ({"digest": "other"}, {"teacher", "student", "distilled"}),
        # What a command is asked for besides decides no model's numbers.
        ({"name": "other"}, set()),
        ({"temperatures": "1,2"}, set()),
        ({"seeds": "0-4"}, set()),
        ({"min_group_size": "5"}, set()),
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


class Toy(DistillationConfig):
    """Another method, with a field of its own."""

    method: Literal["toy"] = Field("toy", description="method")
    sharpness: float = Field(2.0, description="a field that kd has not")


class LaterKd(kd.Config):
    """kd of a later version."""

    warming: float = Field(0.0, description="came later", json_schema_extra=NEUTRAL)


class LaterTraining(TrainingConfig):
    """A training of a later version."""

    ema: float = Field(0.0, description="came later", json_schema_extra=NEUTRAL)


class GroupDro(MethodConfig):
    """A method without a teacher, with a field of its own."""

    method: Literal["group_dro"] = Field("group_dro", description="method")
    step: float = Field(0.1, description="a field that cross entropy has not")


@pytest.mark.parametrize(
    "field", sorted(kd.Config.model_fields.keys() - DistillationConfig.model_fields.keys())
)
def test_each_own_field_of_kd_enters_the_key_of_its_student(field: str) -> None:
    assert changed(**{f"distillation__{field}": OTHER_VALUES[field]}) == {"distilled"}


def test_a_methods_name_and_fields_enter_the_key_of_its_student_alone() -> None:
    found = [keys(), *(keys_of(with_distillation(Toy(sharpness=s))) for s in (2.0, 3.0))]
    assert len({key["distilled"] for key in found}) == 3
    assert len({key["teacher"] for key in found}) == len({key["student"] for key in found}) == 1


def test_a_method_without_a_teacher_enters_the_key_of_what_it_trains() -> None:
    plain = load_project("digits").student
    trainings = [plain.model_copy(update={"method": GroupDro(step=s)}) for s in (0.1, 0.2)]
    found = [keys_of(with_student(training)) for training in (plain, *trainings)]
    assert len({key["student"] for key in found}) == 3
    # The student is trained by distillation; the NDS that it is compared with is another one.
    assert len({key["distilled"] for key in found}) == 3
    assert len({key["teacher"] for key in found}) == 1


def test_a_field_that_came_later_changes_no_key_at_its_default() -> None:
    before = load_project("digits")
    own = before.distillation.model_dump()
    assert keys_of(with_distillation(LaterKd(**own))) == keys()
    assert keys_of(with_distillation(LaterKd(**own, warming=1)))["distilled"] != keys()["distilled"]
    own = before.student.model_dump()
    assert keys_of(with_student(LaterTraining(**own))) == keys()
    assert keys_of(with_student(LaterTraining(**own, ema=0.9)))["student"] != keys()["student"]


def test_a_warm_up_longer_than_the_training_is_one_of_its_length() -> None:
    short = {"student__epochs": "3", "student__warmup_epochs": "3"}
    assert keys(**short | {"student__warmup_epochs": "50"}) == keys(**short)
    assert keys(**short | {"student__warmup_epochs": "2"})["student"] != keys(**short)["student"]


def test_a_key_is_the_digest_of_its_text_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a change of the key's text, after which no old run would be found."""
    monkeypatch.setattr(graph, "STEP_VERSION", 1)
    teacher = teacher_step(load_project("digits"), 0, "d")
    key = run_key(Role.DISTILLED, {"b": [1, 2.5, None], "a": "é"}, "digest", {"teacher": teacher})
    text = (
        f'{{"dataset":"digest","needs":{{"teacher":"{teacher.key}"}},"role":"distilled",'
        '"settings":{"a":"\\u00e9","b":[1,2.5,null]},"version":1}'
    )
    assert key == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_the_order_of_settings_does_not_matter() -> None:
    one = run_key(Role.TEACHER, {"a": 1, "b": {"c": 2, "d": 3}}, "d", {})
    other = run_key(Role.TEACHER, {"b": {"d": 3, "c": 2}, "a": 1}, "d", {})
    assert one == other


def test_new_code_gives_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setattr(graph, "STEP_VERSION", graph.STEP_VERSION + 1)
    assert all(before[role] != key for role, key in keys().items())


def test_what_is_no_number_has_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_key(Role.TEACHER, {"a": float("nan")}, "d", {})


@pytest.mark.parametrize(("chosen", "teacher"), [("same", 3), ("0", 0), ("7", 7)])
def test_students_learn_from_the_teacher_chosen(chosen: str, teacher: int) -> None:
    config = load_project("digits", {"distillation.teacher_seed": chosen})
    assert distilled_step(config, 3, "d").needs[TEACHER] == teacher_step(config, teacher, "d")


@pytest.mark.parametrize(
    ("role", "title"),
    [
        ("teacher", "Teacher resnet20 seed 2"),
        ("student", "NDS lenet5 seed 2"),
        ("distilled", "DS lenet5 kd T=4 alpha=0.8 seed 2"),
    ],
)
def test_a_step_is_named_by_what_it_trains(role: str, title: str) -> None:
    assert STEPS[role](load_project("digits"), 2, "d").title == title


def test_a_method_without_temperature_and_weight_is_named_alone() -> None:
    step = distilled_step(with_distillation(Toy()), 2, "d")
    assert step.title == "DS lenet5 toy seed 2"


def test_compared_methods_share_teacher_and_nds_and_one_without_a_temperature_is_one_step() -> None:
    config = load_project("digits", {"methods": "kd,cist", "seeds": "0-1"})
    steps = study_steps(config, "d", [1.0, 4.0])
    assert [step.role for step in steps[:4]] == [Role.TEACHER] * 2 + [Role.STUDENT] * 2
    titles = [step.title for step in steps[4:] if step.seed == 0]
    assert titles == [
        "DS lenet5 kd T=1 alpha=0.8 seed 0",
        "DS lenet5 kd T=4 alpha=0.8 seed 0",
        "DS lenet5 cist seed 0",
    ]
    # A method is the same model whether it is swept alone or with others.
    alone = load_project("digits", {"method": "cist", "seeds": "0-1"})
    keys = {step.key for step in study_steps(alone, "d", [1.0, 4.0])}
    assert keys <= {step.key for step in steps}
    assert len(keys) == 6


def test_a_method_without_a_temperature_is_not_given_one() -> None:
    with pytest.raises(ValueError, match="method 'toy' has no temperature"):
        Toy().at(temperature=2.0)
    base = {"method": "logit_standardization", "distillation.base": "cist"}
    method = load_project("digits", base).distillation
    assert method.at_each([1.0, 4.0]) == [method]


def test_what_is_needed_stands_once_before_what_needs_it() -> None:
    config = load_project("digits", {"seeds": "0-1", "distillation.teacher_seed": "0"})
    steps = study_steps(config, "d", [1.0, 2.0])
    assert [step.role for step in steps] == [
        Role.TEACHER,
        *[Role.STUDENT] * 2,
        *[Role.DISTILLED] * 4,
    ]
    assert with_needs(reversed(steps))[0] == steps[0]
    assert len({step.key for step in steps}) == len(steps)
