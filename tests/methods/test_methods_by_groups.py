"""Methods that go by groups, classes or rows, against their formulas in numpy and float64."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.formulas import Array, ce, kd, kl, softmax
from helpers.given_logits import begun, given_batch, given_run, random_logits
from helpers.refusals import refusal_of
from torch import Tensor

from kdplatform.data import Split
from kdplatform.methods import Loss, Method, method_config_class, method_config_classes
from kdplatform.settings.project import load_project
from kdplatform.strata import strata_by_frequency

B, K = 6, 4
# Of the first six rows, which are the batch, each class and the groups a and b are; c is not.
LABELS = np.array([0, 1, 2, 3, 0, 0, 0, 0, 1, 1, 2, 0])
GROUPS = np.array(["a", "b", None, "b", "a", "a", "b", "a", "a", "b", "a", "c"], dtype=object)
SIZES = np.bincount(LABELS)
Y = LABELS[:B]


def split_of(labels: Any, groups: Any, first_id: int = 0) -> Split:
    count = len(labels)
    columns = pd.DataFrame({"group": groups})
    ids = np.arange(first_id, first_id + count)
    return Split(torch.zeros(count, 1), torch.tensor(labels), ids, columns)


TRAIN = split_of(LABELS, GROUPS)
# Class 3 has no validation example.
VAL_LABELS = [0, 0, 0, 1, 1, 2]
VAL = split_of(VAL_LABELS, ["a", "b", "b", "a", None, "b"], 100)


def teacher_on_validation() -> Tensor:
    """Right with class 0, half right with 1, wrong with 2."""
    logits = torch.zeros(len(VAL_LABELS), K, dtype=torch.float64)
    for row, said in enumerate([0, 0, 0, 1, 2, 0]):
        logits[row, said] = 2.0 + 0.1 * row
    return logits


def run_on(student: Tensor, teacher: Tensor, train: Split = TRAIN, **run: Any) -> SimpleNamespace:
    made = given_run(student, teacher, **run)
    made.split, made.validation = train, VAL
    made.asked = []

    def teacher_logits(split: str) -> Tensor:
        made.asked.append(split)
        return teacher_on_validation()

    made.teacher_logits = teacher_logits
    return made


def method_of(name: str, run: Any, *, alone: bool = False, **fields: Any) -> Method[Any]:
    own = method_config_classes(name)[False] if alone else method_config_class(name)
    groups = {"attribute": "group"} if "attribute" in own.model_fields else {}
    return begun(own.model_validate(groups | fields), run)


def loss_of(name: str, *given: Tensor, train: Split = TRAIN, **fields: Any) -> Loss:
    run = run_on(*given[:2], train=train)
    return method_of(name, run, **fields).loss(given_batch(given[2]), run)  # type: ignore[arg-type]


def rows_of(name: str, *given: Tensor, **fields: Any) -> Tensor:
    return loss_of(name, *given, **fields).rows


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor]:
    student, teacher, _ = random_logits(B, K)
    return student, teacher, torch.tensor(Y)


# ---- the formulas


def class_balanced(beta: float) -> Array:
    weights = (1 - beta) / (1 - beta**SIZES)
    return (weights * K / weights.sum())[Y]


def kamiran_calders() -> Array:
    inside = GROUPS != None  # noqa: E711 - element by element
    groups, labels = GROUPS[inside], LABELS[inside]
    weights = np.ones(B)
    for row in range(B):
        a, y = groups == GROUPS[row], labels == LABELS[row]
        if inside[row]:
            weights[row] = a.mean() * y.mean() / (a & y).mean()
    return weights


def group_dro(rows: Array, step_size: float) -> Array:
    means = {g: rows[GROUPS[:B] == g].mean() if g != "c" else 0.0 for g in "abc"}
    total = sum(np.exp(step_size * mean) for mean in means.values())
    u = {g: np.exp(step_size * mean) / total for g, mean in means.items()}
    inside = sum(g is not None for g in GROUPS[:B])
    weights = [1.0 if g is None else u[g] * inside / (GROUPS[:B] == g).sum() for g in GROUPS[:B]]
    return np.array(weights) * rows


def cvar(rows: Array, share: float) -> Array:
    left, weights = share * B, np.zeros(B)
    for row in np.argsort(-rows):
        weights[row] = min(max(left, 0), 1) / share
        left -= 1
    return weights * rows


def group_temperatures(power: float, **by_hand: float) -> Array:
    sizes = {g: np.equal(GROUPS, g).sum() for g in "abc"}
    mean = sum(sizes.values()) / 3
    of = {g: by_hand.get(g, 4 * (mean / size) ** power) for g, size in sizes.items()}
    return np.array([[of.get(g, 4.0)] for g in GROUPS[:B]])


def margins() -> dict[Any, list[float]]:
    """The teacher's margins on validation, by class and by group."""
    p = softmax(teacher_on_validation().numpy())
    found: dict[Any, list[float]] = {}
    for row, label in enumerate(VAL_LABELS):
        margin = p[row, label] - np.delete(p[row], label).max()
        for key in ("all", label, VAL.columns["group"][row]):
            found.setdefault(key, []).append(margin)
    return found


def mean_margin(key: Any, smoothing: float) -> float:
    own, overall = margins().get(key, []), np.mean(margins()["all"])
    if not own and not smoothing:
        return float(overall)
    return float((sum(own) + smoothing * overall) / (len(own) + smoothing))


def trust(keys: Any, scale: float = 1, floor: float = 0, smoothing: float = 5) -> Array:
    keys = ["all" if key is None else key for key in keys]
    return np.array([scale * max(floor, mean_margin(key, smoothing)) for key in keys])


def adaptive_margin(s: Array, t: Array, m: Array, temperature: float = 4) -> Array:
    """The sum over pairs of classes; m is [B, K]."""
    z, p = s / temperature, softmax(t / temperature)
    total = np.zeros(B)
    for i in range(B):
        for k in range(K):
            others = sum(np.exp(z[i, j] - z[i, k] + m[i, k]) for j in range(K) if j != k)
            total[i] += p[i, k] * (np.log1p(others) + np.log(p[i, k]))
    return 0.8 * temperature**2 * total + 0.2 * ce(s, Y)


def bkd(s: Array, t: Array, beta: float, temperature: float) -> Array:
    p = softmax(t / temperature) * (1 - beta) / (1 - beta**SIZES)
    p /= p.sum(1, keepdims=True)
    return ce(s, Y) + temperature**2 * kl(p, softmax(s / temperature))


def logit_adjusted(s: Array, t: Array, temperature: float) -> Array:
    q = softmax(s / temperature) * SIZES
    q /= q.sum(1, keepdims=True)
    return ce(s, Y) + temperature**2 * kl(softmax(t / temperature), q)


def stratified(
    s: Array, t: Array, strata: list[list[int]], cross: str, temperature: float = 4
) -> Array:
    p, q = softmax(t / temperature), softmax(s / temperature)
    total = sum(
        kl(softmax(t[:, c] / temperature), softmax(s[:, c] / temperature)) for c in strata
    ) / len(strata)
    p_g, q_g = (np.stack([x[:, c].sum(1) for c in strata], 1) for x in (p, q))
    if cross == "recalibrated":
        p_g = p_g / np.array([SIZES[c].sum() for c in strata])
        p_g /= p_g.sum(1, keepdims=True)
    if cross != "dropped":
        total = total + kl(p_g, q_g)
    return ce(s, Y) + temperature**2 * total


def self_distillation(s: Array, temperature: float, alpha: float, correct: float) -> Array:
    v = np.full((B, K), (1 - correct) / (K - 1))
    v[np.arange(B), Y] = correct
    return alpha * kl(softmax(v / temperature), softmax(s)) + (1 - alpha) * ce(s, Y)


Formula = Callable[[Array, Array], Array]
CASES: list[tuple[str, dict[str, Any], Formula]] = [
    ("class_balanced", {}, lambda s, t: class_balanced(0.9999) * kd(s, t, Y)),
    (
        "class_balanced",
        {"beta": 0.9, "temperature": 2, "alpha": 0.5},
        lambda s, t: class_balanced(0.9) * kd(s, t, Y, 2, 0.5),
    ),
    ("class_balanced", {"alone": True}, lambda s, t: class_balanced(0.9999) * ce(s, Y)),
    ("reweighing", {}, lambda s, t: kamiran_calders() * kd(s, t, Y)),
    ("reweighing", {"alone": True}, lambda s, t: kamiran_calders() * ce(s, Y)),
    ("group_dro", {"step_size": 0.5}, lambda s, t: group_dro(kd(s, t, Y), 0.5)),
    ("group_dro", {"alone": True, "step_size": 2}, lambda s, t: group_dro(ce(s, Y), 2)),
    ("cvar", {}, lambda s, t: cvar(kd(s, t, Y), 0.5)),
    ("cvar", {"share": 0.4, "temperature": 2}, lambda s, t: cvar(kd(s, t, Y, 2), 0.4)),
    ("cvar", {"share": 0.1}, lambda s, t: cvar(kd(s, t, Y), 0.1)),
    ("worst_class", {"robustness": 1}, lambda s, t: (LABELS.size / K / SIZES)[Y] * kd(s, t, Y)),
    (
        "worst_class",
        {"robustness": 0.25},
        lambda s, t: (0.75 + 0.25 * LABELS.size / K / SIZES)[Y] * kd(s, t, Y),
    ),
    ("group_temperature", {}, lambda s, t: kd(s, t, Y, group_temperatures(0.5))),
    (
        "group_temperature",
        {"power": -1, "group_temperatures": "b=3"},
        lambda s, t: kd(s, t, Y, group_temperatures(-1, b=3)),
    ),
    ("adaptive_alpha", {}, lambda s, t: kd(s, t, Y, 4, trust(GROUPS[:B]))),
    (
        "adaptive_alpha",
        {"attribute": "label", "scale": 2, "floor": 0.1, "smoothing": 0, "temperature": 2},
        lambda s, t: kd(s, t, Y, 2, np.minimum(trust(Y, 2, 0.1, 0), 1)),
    ),
    (
        "adaptive_margin",
        {"attribute": "label", "scale": 3},
        lambda s, t: adaptive_margin(s, t, np.tile(trust(range(K), 3), (B, 1))),
    ),
    (
        "adaptive_margin",
        {"smoothing": 1, "floor": 0.2, "temperature": 2},
        lambda s, t: adaptive_margin(
            s, t, np.tile(trust(GROUPS[:B], 1, 0.2, 1)[:, None], (1, K)), 2
        ),
    ),
    ("balanced", {}, lambda s, t: bkd(s, t, 0.9999, 2)),
    ("balanced", {"beta": 0.5, "temperature": 3}, lambda s, t: bkd(s, t, 0.5, 3)),
    ("balanced", {"form": "logit_adjustment"}, lambda s, t: logit_adjusted(s, t, 2)),
    ("group_stratified", {}, lambda s, t: stratified(s, t, [[0], [1, 2, 3]], "dropped")),
    *(
        (
            "group_stratified",
            {"given": "0,3/1,2", "cross_term": cross, "temperature": 2},
            lambda s, t, cross=cross: stratified(s, t, [[0, 3], [1, 2]], cross, 2),
        )
        for cross in ("dropped", "recalibrated", "kept")
    ),
    ("self_distillation", {}, lambda s, t: self_distillation(s, 20, 0.1, 0.99)),
    (
        "self_distillation",
        {"temperature": 0.5, "alpha": 0.7, "correct": 0.9},
        lambda s, t: self_distillation(s, 0.5, 0.7, 0.9),
    ),
]


@pytest.mark.parametrize(("name", "fields", "formula"), CASES)
def test_the_loss_is_the_formula(
    name: str, fields: dict[str, Any], formula: Formula, given: tuple[Tensor, Tensor, Tensor]
) -> None:
    rows = rows_of(name, *given, **fields)
    expected = formula(given[0].numpy(), given[1].numpy())
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-6, atol=1e-9)


# ---- where they become plain distillation

EVEN = split_of([0, 1, 2, 3] * 2, ["a"] * 4 + ["b"] * 4)
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("class_balanced", {"beta": 0}),
    ("class_balanced", {"train": EVEN}),
    ("reweighing", {"train": EVEN}),
    ("cvar", {"share": 1}),
    ("worst_class", {"robustness": 0}),
    ("worst_class", {"train": EVEN}),
    ("group_temperature", {"power": 0}),
    ("group_temperature", {"train": EVEN}),
    ("adaptive_alpha", {"floor": 0.8, "scale": 1}),
    ("adaptive_margin", {"scale": 0}),
]


@pytest.mark.parametrize(("name", "fields"), PLAIN)
def test_uniform_weights_are_plain_distillation(
    name: str, fields: dict[str, Any], given: Any
) -> None:
    expected = rows_of("kd", *given)
    torch.testing.assert_close(rows_of(name, *given, **fields), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["bkd", "logit_adjustment"])
def test_balanced_classes_have_no_bias(form: str, given: Any) -> None:
    rows = rows_of("balanced", *given, form=form, ce_weight=0, train=EVEN)
    torch.testing.assert_close(rows, rows_of("kd", *given, temperature=2, alpha=1))


@pytest.mark.parametrize("name", ["reweighing", "class_balanced", "group_dro"])
def test_without_a_teacher_it_is_never_asked(name: str, given: Any) -> None:
    run = run_on(given[0], given[1])
    del run.teacher
    method = method_of(name, run, alone=True)
    assert method.needs.teacher == "none"
    assert method.loss(given_batch(given[2]), run).parts == {}
    assert method_of(name, run).needs.teacher == "logits"


# ---- reweighing


def test_under_the_weights_group_and_class_are_independent() -> None:
    labels = [0, 0, 0, 1, 1, 0, 0, 1, 1, 1]
    train = split_of(labels, list("aaaaabbbbb"))
    logits = torch.zeros(10, 2, dtype=torch.float64)
    given = (logits, logits, torch.tensor(labels))
    weights = rows_of("reweighing", *given, train=train, alone=True) / np.log(2)
    mass = weights.numpy().reshape(2, 5)
    shares = np.array(
        [[mass[g][np.array(labels[5 * g :][:5]) == y].sum() for y in (0, 1)] for g in (0, 1)]
    )
    np.testing.assert_allclose(shares, 2.5)
    assert weights.mean() == pytest.approx(1)


def test_beta_near_1_weighs_classes_by_their_examples(given: Any) -> None:
    logits = torch.zeros(B, K, dtype=torch.float64)
    rows = rows_of("class_balanced", logits, logits, given[2], beta=1 - 1e-9, alone=True)
    np.testing.assert_allclose((rows.numpy() * SIZES[Y]).std(), 0, atol=1e-6)


# ---- group_dro


TWO_GROUPS = split_of(LABELS[:B], ["a", "b", "a", "b", "a", "a"])


def two_group_means(rows: Tensor) -> list[float]:
    return [float(rows[[0, 2, 4, 5]].mean()), float(rows[[1, 3]].mean())]


def test_step_size_0_is_the_mean_over_groups(given: Any) -> None:
    rows = rows_of("group_dro", *given, step_size=0, train=TWO_GROUPS)
    means = two_group_means(rows_of("kd", *given))
    assert float(rows.mean()) == pytest.approx(np.mean(means))


def test_a_large_step_size_is_the_worst_group(given: Any) -> None:
    rows = rows_of("group_dro", *given, step_size=1e6, train=TWO_GROUPS)
    means = two_group_means(rows_of("kd", *given))
    assert float(rows.mean()) == pytest.approx(max(means))


def test_the_weights_follow_the_losses_of_all_steps(given: Any) -> None:
    run = run_on(given[0], given[1], train=TWO_GROUPS)
    method, batch = method_of("group_dro", run, step_size=0.1), given_batch(given[2])
    means = np.array(two_group_means(rows_of("kd", *given)))
    for step in range(1, 4):
        rows = method.loss(batch, run).rows  # type: ignore[arg-type]
        # Asked again before the step, the answer is the same.
        assert torch.equal(rows, method.loss(batch, run).rows)  # type: ignore[arg-type]
        weights = np.exp(0.1 * step * means)
        assert float(rows.mean()) == pytest.approx(float(weights @ means / weights.sum()))
        method.after_step(run)  # type: ignore[arg-type]


# ---- cvar


def test_a_small_share_is_the_worst_row(given: Any) -> None:
    rows = rows_of("cvar", *given, share=1e-3)
    assert float(rows.mean()) == pytest.approx(float(rows_of("kd", *given).max()))


# ---- worst_class


def worst_class_after(student_on_validation: Tensor, **fields: Any) -> Array:
    """The weights of the classes at the end of an epoch in which the student said this."""
    student, teacher, _ = random_logits(B, K)
    run = run_on(student, teacher)
    run.student_logits = lambda split: student_on_validation
    method = method_of("worst_class", run, **fields)
    method.after_step(run)  # type: ignore[arg-type]
    weights: Array = method.log_weights.exp().numpy()
    return weights


def test_the_classes_weights_follow_the_students_validation_loss() -> None:
    said = torch.randn(len(VAL_LABELS), K, generator=torch.Generator().manual_seed(2)).double()
    found = ce(said.numpy(), VAL_LABELS)
    means = [found[np.array(VAL_LABELS) == c].mean() if c < 3 else 0.0 for c in range(K)]
    weights = np.exp(0.3 * np.array(means))
    np.testing.assert_allclose(worst_class_after(said, step_size=0.3), weights / weights.sum())
    worst = np.eye(K)[np.argmax(means)]
    np.testing.assert_allclose(worst_class_after(said, step_size=1e5), worst)


def test_they_move_at_the_end_of_an_epoch_alone(given: Any) -> None:
    run = run_on(given[0], given[1])
    run.step, run.steps_per_epoch = 5, 3
    method = method_of("worst_class", run)
    method.after_step(run)  # type: ignore[arg-type]
    assert method.log_weights.exp().tolist() == pytest.approx([1 / K] * K)


def test_the_mean_weight_of_training_examples_is_1() -> None:
    logits = torch.zeros(len(LABELS), K, dtype=torch.float64)
    rows = rows_of("worst_class", logits, logits, TRAIN.labels, alpha=0)
    assert float(rows.mean()) == pytest.approx(np.log(K))


# ---- the teacher's margins


def with_teacher_on_validation(monkeypatch: pytest.MonkeyPatch, said: list[int]) -> None:
    logits = 1e3 * torch.nn.functional.one_hot(torch.tensor(said), K).double()
    monkeypatch.setitem(globals(), "teacher_on_validation", lambda: logits)


BY_CLASS = {"attribute": "label", "smoothing": 0}


def test_a_teacher_that_is_always_right_is_trusted(
    monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    with_teacher_on_validation(monkeypatch, VAL_LABELS)
    rows = rows_of("adaptive_alpha", *given, **BY_CLASS)
    torch.testing.assert_close(rows, rows_of("kd", *given, alpha=1))


def test_what_the_teacher_says_of_a_class_it_always_misses_does_not_count(
    monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    with_teacher_on_validation(monkeypatch, [1, 1, 1, 1, 1, 2])
    student, teacher, labels = given
    rows = rows_of("adaptive_alpha", *given, **BY_CLASS)
    missed = labels == 0
    torch.testing.assert_close(rows[missed], rows_of("kd", *given, alpha=0)[missed])
    others = rows_of("adaptive_alpha", student, teacher.flip(1), labels, **BY_CLASS)
    assert torch.equal(rows[missed], others[missed])
    assert (rows[labels == 1] != others[labels == 1]).all()


def test_at_temperature_1_it_has_one_mixed_target(given: Any) -> None:
    student, teacher, labels = given
    student = student.clone().requires_grad_()
    rows = rows_of("adaptive_alpha", student, teacher, labels, temperature=1)
    [found] = torch.autograd.grad(rows.sum(), student)
    a = torch.tensor(trust(GROUPS[:B])).unsqueeze(1)
    target = (1 - a) * torch.nn.functional.one_hot(labels, K) + a * teacher.softmax(1)
    torch.testing.assert_close(found, student.detach().softmax(1) - target)


@pytest.mark.parametrize("name", ["adaptive_alpha", "adaptive_margin"])
def test_margins_are_measured_on_validation_alone(name: str, given: Any) -> None:
    run = run_on(given[0], given[1])
    method_of(name, run)
    assert run.asked == ["val"]
    assert not set(TRAIN.ids) & set(VAL.ids)


GIVEN = ("one=0.8", "two=-0.2", "three=0", "four=0.3")
NAMES = ("four", "three", "two", "one")


def with_margins(name: str, given: Any, margins: object, **fields: Any) -> tuple[Method[Any], Any]:
    run = run_on(given[0], given[1])
    run.class_names = NAMES
    return method_of(name, run, margins=margins, **fields), run


@pytest.mark.parametrize("name", ["adaptive_alpha", "adaptive_margin"])
def test_margins_that_are_given_go_by_names_and_are_not_measured(name: str, given: Any) -> None:
    method, run = with_margins(name, given, GIVEN, attribute="label", floor=0.1, scale=2)
    # Six of the training examples are of the first class, three, two and one of the others.
    overall = (6 * 0.3 + 3 * 0 + 2 * -0.2 + 1 * 0.8) / 12
    assert method.trust.tolist() == pytest.approx([0.6, 0.2, 0.2, 1.6, 2 * overall])
    assert run.asked == []


def test_margins_of_a_file_are_its_values(given: Any, tmp_path: Any) -> None:
    file = tmp_path / "margins.csv"
    file.write_text("name,margin\nb,0.25\nc,1\na,-1\n")
    method, _ = with_margins("adaptive_alpha", given, str(file))
    assert method.config.margins == ("b=0.25", "c=1", "a=-1")
    assert method.trust[:3].tolist() == [0, 0.25, 1]
    unset = method_config_class("adaptive_alpha")()
    assert "margins" not in unset.matters()


@pytest.mark.parametrize(
    ("margins", "line"),
    [
        ("one=0.5", "distillation.margins is without classes: 'four', 'three', 'two'; allowed: "),
        ((*GIVEN, "cat=0"), "distillation.margins has unknown classes: 'cat'; allowed: a margin "),
    ],
)
def test_margins_of_other_classes_are_refused(given: Any, margins: object, line: str) -> None:
    refused = refusal_of(with_margins, "adaptive_alpha", given, margins, attribute="label")
    assert refused.startswith(line)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("class,margin\na,1\n", "its columns are class, margin; wanted: name, margin"),
        ("name,margin\na,high\n", "'a=high' is no name=margin, from -1 to 1"),
        ("name,margin\na,nan\n", "'a=nan' is no name=margin, from -1 to 1"),
        ("name,margin\na,1.5\n", "'a=1.5' is no name=margin, from -1 to 1"),
        ("name,margin\na,1\na,0\n", "a name is given twice"),
        (None, "is missing"),
    ],
)
def test_a_file_of_margins_is_checked(content: str | None, fault: str, tmp_path: Any) -> None:
    file = tmp_path / "margins.csv"
    if content is not None:
        file.write_text(content)
    overrides = {"method": "adaptive_alpha", "distillation.margins": str(file)}
    line = refusal_of(load_project, "digits", overrides)
    assert line.startswith("distillation.margins=")
    assert fault in line


def test_a_larger_margin_is_a_larger_loss(given: Any) -> None:
    rows = [rows_of("adaptive_margin", *given, floor=0.5, scale=s) for s in (0, 0.5, 1, 4)]
    assert all((low < high).all() for low, high in itertools.pairwise(rows))


# ---- balanced


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_balanced_distillation_is_a_bias_of_the_teacher(given: Any, temperature: float) -> None:
    student, teacher, labels = given
    bias = temperature * np.log((1 - 0.9) / (1 - 0.9**SIZES))
    rows = rows_of("balanced", *given, beta=0.9, temperature=temperature, ce_weight=0)
    biased = rows_of("kd", student, teacher + bias, labels, temperature=temperature, alpha=1)
    torch.testing.assert_close(rows, biased)


def test_an_adjusted_student_leaves_the_class_frequencies_out(given: Any) -> None:
    _, teacher, labels = given
    student = teacher - 2 * torch.tensor(np.log(SIZES))
    rows = rows_of("balanced", student, teacher, labels, form="logit_adjustment", ce_weight=0)
    torch.testing.assert_close(rows, torch.zeros(B, dtype=torch.float64))


# ---- strata of classes

STRATA = {"given": "0,3/1,2", "ce_weight": 0}


@pytest.mark.parametrize("cross", ["dropped", "recalibrated", "kept"])
def test_one_stratum_is_plain_distillation(given: Any, cross: str) -> None:
    rows = rows_of("group_stratified", *given, strata=1, cross_term=cross, ce_weight=0)
    torch.testing.assert_close(rows, rows_of("kd", *given, alpha=1))


def test_whole_strata_may_move(given: Any) -> None:
    student, teacher, labels = given
    offsets = torch.tensor([3.0, -2.0, -2.0, 3.0], dtype=torch.float64)
    before = rows_of("group_stratified", *given, **STRATA)
    moved = rows_of("group_stratified", student - offsets, teacher + 2 * offsets, labels, **STRATA)
    torch.testing.assert_close(before, moved)
    kept = rows_of("group_stratified", *given, **STRATA, cross_term="kept")
    assert not torch.allclose(
        kept,
        rows_of(
            "group_stratified", student, teacher + offsets, labels, **STRATA, cross_term="kept"
        ),
    )


def test_the_terms_are_those_of_the_chain_rule(given: Any) -> None:
    cross = loss_of("group_stratified", *given, **STRATA, cross_term="kept").parts["cross"]
    p = (given[1] / 4).softmax(1)
    total = cross.clone()
    for classes in ([0, 3], [1, 2]):
        inside = [(z[:, classes]).numpy() / 4 for z in given[:2]]
        within = kl(softmax(inside[1]), softmax(inside[0]))
        total += p[:, classes].sum(1) * torch.tensor(within)
    torch.testing.assert_close(16 * total, rows_of("kd", *given, alpha=1))


@pytest.mark.parametrize("strata", [1, 2, 3, 5])
def test_strata_have_equal_shares_within_a_class(strata: int) -> None:
    counts = np.random.default_rng(0).integers(1, 100, 40).tolist()
    found = strata_by_frequency(counts, strata)
    assert sorted(c for classes in found for c in classes) == list(range(40))
    ordered = [counts[c] for classes in found for c in classes]
    assert ordered == sorted(ordered, reverse=True)
    quota = sum(counts) / strata
    for classes in found[:-1]:
        assert quota <= sum(counts[c] for c in classes) < quota + counts[classes[-1]]
    assert sum(counts[c] for c in found[-1]) >= quota / 2


def test_a_last_stratum_of_less_than_half_a_share_joins_the_one_before() -> None:
    assert strata_by_frequency([10, 10, 6], 2) == [[0, 1, 2]]
    assert strata_by_frequency([7, 10, 10], 2) == [[1, 2], [0]]


# ---- self_distillation


@pytest.mark.parametrize(("temperature", "alpha"), [(20.0, 0.1), (0.5, 0.9)])
def test_a_virtual_teacher_is_label_smoothing(given: Any, temperature: float, alpha: float) -> None:
    student = given[0].clone().requires_grad_()
    fields = {"temperature": temperature, "alpha": alpha, "correct": 0.9}
    [found] = torch.autograd.grad(
        rows_of("self_distillation", student, *given[1:], **fields).sum(), student
    )
    virtual = torch.full((K,), 0.1 / 3, dtype=torch.float64)
    virtual[0] = 0.9
    wrong = float((virtual / temperature).softmax(0)[1])
    smoothed = torch.nn.functional.cross_entropy(
        student, given[2], label_smoothing=alpha * K * wrong, reduction="sum"
    )
    torch.testing.assert_close(found, torch.autograd.grad(smoothed, student)[0])
