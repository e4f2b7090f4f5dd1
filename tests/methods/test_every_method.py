"""What holds for every method there is: a new file is tested here without being listed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.given_logits import evaluate, random_logits, split_of
from torch import Tensor, nn

from kdplatform.data import Split
from kdplatform.experiments.graph import distilled_step, student_step
from kdplatform.methods import (
    build_method,
    method_class,
    method_config_class,
    method_config_classes,
    method_names,
)
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import DistillationConfig, MethodConfig, TrainingConfig
from kdplatform.training import FitResult, Teacher, TeacherTable, fit

# Those that work with a teacher and without are two: `name`, and `name alone`.
METHODS = [
    name if own is method_config_class(name) else f"{name} alone"
    for name in method_names()
    for own in method_config_classes(name).values()
]
# Settings by which a method takes another way than by its defaults, as `name field=value`.
VARIANTS = (
    "adversarial base=kd",
    "adversarial form=trades",
    "adaptive_margin attribute=label",
    "balanced form=logit_adjustment",
    "crckd teacher=frozen",
    "ctkd level=row",
    "divergence kind=forward",
    "divergence kind=jsd",
    "divergence kind=skew",
    "divergence kind=symmetric",
    "divergence kind=total_variation",
    "ensemble row_weight=inverse_ce",
    "ensemble weighting=correctness",
    "feature kind=rkd",
    "feature kind=selectivity",
    "feature kind=similarity",
    "group_dro attribute=label",
    "group_stratified cross_term=recalibrated",
    "group_stratified cross_term=kept",
    "logit_standardization base=ctkd",
    "logit_standardization base=dkd",
    "logit_standardization base=mlkd",
    "teacher_correction correction=lr",
    "teacher_correction correction=rc",
    "ttm weighted=true",
    "warmup_preference then=crckd",
)
CASES = (*METHODS, *VARIANTS)
# In whose gradient something computed from the student's logits counts as a constant. Their own
# tests hold their gradients.
CONSTANTS = {
    "cist": "the student's temperature",
    "group_dro": "the groups' weights",
    "group_dro alone": "the groups' weights",
    "group_dro attribute=label": "the groups' weights",
    "teacher_correction correction=rc": "the student's own corrected logits",
    "wsld": "a row's weight",
}
# What a shift of a row's logits changes.
SHIFTED = {"teacher_correction correction=rc": "the highest logit, which is added to the true one"}
# Parts that are not 0 where student and teacher agree, and what they are.
NO_DIVERGENCE = {
    ("adversarial", "kl"): "a divergence between two temperatures",
    ("adaptive_margin", "margin_kl"): "a divergence with a margin",
    ("crckd", "contrast"): "a contrast with random vectors",
    ("crckd", "relation"): "a divergence between two projections",
    ("feature", "feature"): "features behind a layer that has learnt nothing yet",
    ("balanced", "kl"): "a divergence between two balances of the classes",
    ("ensemble", "row_weight"): "how far the teachers are right",
    ("group_stratified", "cross"): "where it is recalibrated, a divergence between two balances",
    ("warmup_preference", "contrast"): "that of crckd",
    ("warmup_preference", "relation"): "that of crckd",
    ("low_temperature", "kl"): "a divergence between two temperatures",
    ("nkd", "target"): "cross entropy with the label",
    **{
        (method, part): "a choice between two classes"
        for method in ("rank_distillation", "unkd")
        for part in ("bpr", "pairs")
    },
    ("teacher_correction", "rc"): "a divergence from the student itself, corrected",
    ("ttm", "kl"): "a divergence between two temperatures",
}
# What a case needs beside its defaults: the splits here are no images that can be attacked.
GIVEN: dict[str, dict[str, Any]] = {
    "adversarial": {"eps": 0, "base_fields": "ce_weight=0.5"},
    "adversarial alone": {"eps": 0},
    "warmup_preference": {"eta": 0},
    "warmup_preference then=crckd": {"eta": 0, "warmup_epochs": 1},
    "adversarial base=kd": {"eps": 0},
    "adversarial form=trades": {"eps": 0, "base_fields": "ce_weight=0.5"},
}
# What a field needs beside it to have another value than its default.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("adversarial", "beta"): {"form": "trades"},
    ("ensemble", "attribute"): {"weighting": "group"},
    ("ensemble", "correctness"): {"weighting": "correctness"},
    ("ensemble", "kappa"): {"weighting": "correctness"},
    ("ensemble", "reference"): {"weighting": "agre"},
    ("ensemble", "disagreement"): {"unlabeled_weight": 1.0},
    ("ensemble", "scale_disagreement"): {"unlabeled_weight": 1.0},
}
# Another value of a field that its type does not suggest.
OTHER: dict[str | tuple[str, str], Any] = {
    ("adversarial", "base_fields"): ("kd_weight=2",),
    ("ensemble", "attribute"): "group",
    "attribute": "label",
    "base": "dkd",
    "base_fields": ("scale_by_t2=false",),
    "given": "0/1-3",
    "group_teachers": ("a=1", "b=2"),
    "group_temperatures": ("a=2",),
    "reference": "1",
    "margins": ("0=0.5", "1=0"),
    "temperatures": (1.0, 2.0),
    "weights": (1.0, 1.0, 2.0),
    "then": "dkd",
    "then_fields": ("alpha=0.5",),
    "weight": 2.0,
}
# Without which a field is refused.
ALLOWED_WITH = {"group_teachers": {"weighting": "group"}, "weights": {"weighting": "fixed"}}


def config_of(case: str, **fields: Any) -> MethodConfig:
    """Returns the method of a case; by the groups of the split, where it goes by groups."""
    name, *settings = case.split()
    own = method_config_class(name)
    if settings == ["alone"]:
        own, settings = method_config_classes(name)[False], []
    # An ensemble goes by groups only where its weighting does.
    by_groups = "attribute" in own.model_fields and name != "ensemble"
    groups = {"attribute": "group"} if by_groups else {}
    given = dict(setting.split("=") for setting in settings)
    return own.model_validate({**groups, **GIVEN.get(case, {}), **given, **fields})


# Those that have done all once they have begun have no loss of a row.
IN_STEPS = [case for case in CASES if method_class(case.split()[0]).needs.steps]
RESUMED = [
    *(case for case in METHODS if case in IN_STEPS),
    "crckd teacher=frozen",
    "crckd batch_norm=average",
    "ctkd level=row",
    "logit_standardization base=ctkd",
    "warmup_preference then=crckd",
]
WITH_TEACHER = [case for case in CASES if isinstance(config_of(case), DistillationConfig)]


def gradient(case: str, student: Tensor, teacher: Tensor, labels: Tensor, **run: Any) -> Tensor:
    """Returns the student's gradient, after holding that loss and gradient are finite."""
    student = student.clone().requires_grad_()
    loss = evaluate(config_of(case), student, teacher, labels, **run)
    assert loss.rows.shape == labels.shape
    assert loss.rows.isfinite().all()
    assert all(part.shape == labels.shape for part in loss.parts.values())
    assert not any(part.requires_grad for part in loss.parts.values())
    [found] = torch.autograd.grad(loss.rows.mean(), student)
    assert found.isfinite().all()
    return found


@pytest.mark.parametrize("case", [case for case in IN_STEPS if case not in CONSTANTS])
def test_the_gradient_is_that_of_the_loss(case: str) -> None:
    student, teacher, labels = random_logits(4, 4)

    def mean(logits: Tensor) -> Tensor:
        return evaluate(config_of(case), logits, teacher, labels).rows.mean()

    # In random directions, not one number at a time.
    assert torch.autograd.gradcheck(mean, student.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("case", WITH_TEACHER)
def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn_from_it(case: str) -> None:
    _, teacher, _ = random_logits()
    loss = evaluate(config_of(case), teacher.clone(), teacher, teacher.argmax(dim=1))
    for part, values in loss.parts.items():
        if part not in ("ce", "temperature") and (case.split()[0], part) not in NO_DIVERGENCE:
            torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-7, rtol=0)


@pytest.mark.parametrize("case", [case for case in IN_STEPS if case not in SHIFTED])
def test_a_shift_of_a_rows_logits_changes_nothing(case: str) -> None:
    student, teacher, labels = random_logits()
    shift = torch.arange(6.0, dtype=torch.float64).unsqueeze(1)
    before = evaluate(config_of(case), student, teacher, labels).rows
    after = evaluate(config_of(case), student + shift, teacher - 2 * shift, labels).rows
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", WITH_TEACHER)
def test_another_teacher_gives_another_gradient(case: str) -> None:
    student, teacher, labels = random_logits()
    one = gradient(case, student, teacher, labels)
    assert not torch.equal(one, gradient(case, student, teacher.flip(1), labels))


@pytest.mark.parametrize("case", IN_STEPS)
@pytest.mark.parametrize("opposite", [False, True])
def test_extreme_logits_give_finite_numbers(case: str, opposite: bool) -> None:
    student, teacher, labels = random_logits(dtype=torch.float32)
    student, teacher = 1e4 * student.sign(), 1e4 * teacher.sign()
    gradient(case, student, -student if opposite else teacher, labels)
    gradient(case, torch.zeros_like(student), teacher, labels)
    gradient(case, student, torch.zeros_like(teacher), labels)


@pytest.mark.parametrize("case", IN_STEPS)
def test_two_classes_one_row_and_a_batch_that_lacks_most_give_finite_numbers(case: str) -> None:
    gradient(case, *random_logits(4, 2))
    gradient(case, *random_logits(1, 5))
    student, teacher, _ = random_logits(2, 5)
    # Rows 1 and 2 of the split are in one of its two groups.
    gradient(case, student, teacher, torch.tensor([1, 1]), first_row=1)


@pytest.mark.parametrize("case", IN_STEPS)
def test_labels_are_smoothed(case: str) -> None:
    student, teacher, _ = random_logits()
    given = student, teacher, teacher.argmax(dim=1)
    weighted = "ce_weight" in type(config_of(case)).model_fields
    config = config_of(case, **({"ce_weight": 0.5} if weighted else {}))
    hard, smoothed = (evaluate(config, *given, smoothing=e) for e in (0.0, 0.1))
    # Rows of the loss 0 do not count: those that are not among the worst.
    counting = hard.rows != 0
    assert (hard.rows != smoothed.rows)[counting].all()
    assert counting.any()
    if "ce" in smoothed.parts:
        expected = nn.functional.cross_entropy(
            given[0], given[2], label_smoothing=0.1, reduction="none"
        )
        torch.testing.assert_close(smoothed.parts["ce"], expected)


# ---- in training


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Linear(nn.Module):
    """The quickest model there is."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(inputs)
        return logits


def bright_split() -> Split:
    plain = split_of(4)
    inputs = torch.randn(len(plain), 8, generator=torch.Generator().manual_seed(0))
    return Split(inputs, plain.labels, plain.ids, plain.columns)


def trained(
    config: MethodConfig, precision: str, **arguments: Any
) -> tuple[dict[str, Tensor], FitResult]:
    split, network, model = bright_split(), Linear(1), Linear(0)
    table = network(split.inputs).detach()
    training = TrainingConfig(
        model="lenet5",
        epochs=2,
        batch_size=9,
        optimizer="adamw",
        learning_rate=3e-2,
        precision=precision,
    )
    result = fit(
        model,
        split,
        build_method(config),
        training,
        seed=0,
        role=Role.DISTILLED,
        device=torch.device("cpu"),
        teacher=Teacher(TeacherTable(table), lambda: network),
        validation=split,
        unlabeled=split,
        **arguments,
    )
    return model.state_dict(), result


class StopError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    "case",
    RESUMED,
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_goes_on_bit_for_bit(case: str, precision: str, tmp_path: Path) -> None:
    def stop(record: Any) -> None:
        raise StopError

    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    whole, expected = trained(config_of(case), precision)
    with pytest.raises(StopError):
        trained(config_of(case), precision, on_epoch=stop, **saved)
    resumed, result = trained(config_of(case), precision, **saved)
    assert result.restored_epochs == 1
    assert result.precision == precision
    for one, other in zip(expected.records, result.records, strict=True):
        assert (one.train_loss, one.train_parts) == (other.train_loss, other.train_parts)
    for parameter, value in whole.items():
        assert torch.equal(value, resumed[parameter])
        assert value.isfinite().all()


# ---- identity


def own_fields(name: str) -> list[str]:
    shared = set(DistillationConfig.model_fields)
    return [field for field in type(config_of(name)).model_fields if field not in shared]


def other_value(name: str, field: str) -> MethodConfig:
    """Returns a method with another value of one of its fields."""
    method = name.split()[0]
    beside = BESIDE.get((method, field), {})
    config = config_of(name, **beside)
    value, allowed = getattr(config, field), type(config).model_fields[field]
    for known in ((method, field), field):
        if known in OTHER:
            return config_of(name, **beside, **ALLOWED_WITH.get(field, {}), **{field: OTHER[known]})
    if isinstance(value, bool):
        candidates: list[Any] = [not value]
    elif isinstance(value, str):
        candidates = [choice for choice in allowed.annotation.__args__ if choice != value]
    else:
        candidates = [value / 2, value + 1, value * 2, value - 1, (value + 1) / 2]
    for candidate in candidates:
        try:
            other = config_of(name, **{**beside, field: candidate})
        except ValueError:
            continue
        if getattr(other, field) != value:
            return other
    raise AssertionError(f"no other value for {name}.{field}; give one in OTHER")


def key(config: MethodConfig) -> str:
    project = load_project("digits")
    if isinstance(config, DistillationConfig):
        return distilled_step(project.model_copy(update={"distillation": config}), 0, "data").key
    student = project.student.model_copy(update={"method": config})
    return student_step(project.model_copy(update={"student": student}), 0, "data").key


@pytest.mark.parametrize(("name", "field"), [(n, f) for n in METHODS for f in own_fields(n)])
def test_each_own_field_enters_the_key(name: str, field: str) -> None:
    beside = BESIDE.get((name.split()[0], field), {})
    assert key(other_value(name, field)) != key(config_of(name, **beside))


@pytest.mark.parametrize("name", METHODS)
def test_no_other_methods_field_enters_the_key(name: str) -> None:
    mattering = set(config_of(name).matters()) - {"method"}
    assert mattering <= set(own_fields(name))


@pytest.mark.parametrize(("name", "field"), [(n, f) for n in METHODS for f in own_fields(n)])
def test_each_own_field_is_described(name: str, field: str) -> None:
    assert type(config_of(name)).model_fields[field].description
