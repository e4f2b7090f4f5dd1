"""Each method of logits against its formula, written a second time in numpy and float64."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.formulas import Array, ce, kd, kl, softmax
from helpers.given_logits import begun, evaluate, given_batch, given_run, random_logits
from helpers.refusals import refusal_of
from numpy.typing import NDArray
from torch import Tensor

from kdplatform.data import load_dataset
from kdplatform.experiments.graph import distilled_step
from kdplatform.experiments.steps import check_steps
from kdplatform.methods import method_config_class
from kdplatform.methods.ctkd import reversal
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import MethodConfig, TrainingConfig

Formula = Callable[..., Array]
B, K = 6, 5


def without(z: Array, dropped: Any) -> list[Array]:
    """The rows without their dropped classes, one by one."""
    return [row[~drop][None] for row, drop in zip(z, dropped, strict=True)]


def masked_kl(s: Array, t: Array, dropped: Any, temperature: float) -> Array:
    rows = zip(without(s, dropped), without(t, dropped), strict=True)
    return np.array(
        [
            kl(softmax(b / temperature), softmax(a / temperature))[0] if a.size else 0
            for a, b in rows
        ]
    )


def onehot(y: Any, k: int = K) -> NDArray[np.bool_]:
    return np.eye(k, dtype=bool)[y]


def pair(p: Array, k: Any) -> Array:
    """Two classes: class k of each row, and all others."""
    chosen = p[np.arange(len(p)), k]
    return np.stack([chosen, 1 - chosen], 1)


def dkd(
    s: Array,
    t: Array,
    y: Any,
    alpha: float = 1,
    beta: float = 8,
    temperature: float = 4,
    ce_weight: float = 1,
    warmup: float = 1,
) -> Array:
    p, q = softmax(t / temperature), softmax(s / temperature)
    target = kl(pair(p, y), pair(q, y))
    others = masked_kl(s, t, onehot(y), temperature)
    term = alpha * target + beta * others
    return ce_weight * ce(s, y) + warmup * temperature**2 * term


def nkd(s: Array, t: Array, y: Any, gamma: float = 1.5, temperature: float = 1) -> Array:
    belief = softmax(t)[np.arange(B), y]
    others = masked_kl(s, t, onehot(y), temperature)
    return ce(s, y) + belief * ce(s, y) + gamma * temperature**2 * others


def wsld(s: Array, t: Array, y: Any, kd_weight: float = 2.25, temperature: float = 4) -> Array:
    weight = 1 - np.exp(-ce(s, y) / ce(t, y))
    return ce(s, y) + kd_weight * weight * kd(s, t, y, temperature, 1)


def ttm(
    s: Array, t: Array, y: Any, gamma: float = 0.1, kd_weight: float = 45, weighted: bool = False
) -> Array:
    power = softmax(t) ** gamma
    total = power.sum(1)
    term = kl(power / total[:, None], softmax(s))
    return ce(s, y) + kd_weight * (total if weighted else 1) * term


def low_temperature(s: Array, t: Array, y: Any, temperature: float = 2) -> Array:
    return kl(softmax(t / temperature), softmax(s))


def rld(
    s: Array,
    t: Array,
    y: Any,
    temperature: float = 4,
    confidence_temperature: float = 1,
    alpha: float = 1,
    beta: float = 8,
) -> Array:
    a = confidence_temperature
    scd = kl(pair(softmax(t / a), t.argmax(1)), pair(softmax(s / a), y))
    mcd = masked_kl(s, t, t >= t[np.arange(len(y)), y][:, None], temperature)
    return ce(s, y) + alpha * a**2 * scd + beta * temperature**2 * mcd


def divergence(kind: str, temperature: float, share: float) -> Formula:
    def of(s: Array, t: Array, y: Any) -> Array:
        p, q = softmax(t / temperature), softmax(s / temperature)
        m = share * p + (1 - share) * q
        found = {
            "forward": kl(p, q),
            "reverse": kl(q, p),
            "symmetric": (kl(p, q) + kl(q, p)) / 2,
            "jsd": share * kl(p, m) + (1 - share) * kl(q, m),
            "skew": kl(p, m),
            "total_variation": np.abs(p - q).sum(1) / 2,
        }
        power = 1 if kind == "total_variation" else 2
        return 0.8 * temperature**power * found[kind] + 0.2 * ce(s, y)

    return of


def dist(
    s: Array, t: Array, y: Any, beta: float = 1, gamma: float = 1, temperature: float = 1
) -> Array:
    p, q = softmax(t / temperature), softmax(s / temperature)
    rows = np.array([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(B)])
    classes = np.mean([1 - np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(K)])
    return ce(s, y) + temperature**2 * (beta * rows + gamma * classes)


def cist(s: Array, t: Array, y: Any, ratio: float = 3) -> Array:
    own, its = ((z.max(1) - z.mean(1)) / ratio for z in (s, t))
    term = own * its * kl(softmax(t / its[:, None]), softmax(s / own[:, None]))
    return 0.1 * ce(s, y) + 0.9 * term


def swap(s: Array, t: Array, y: Any, temperature: float = 4) -> Array:
    t = t.copy()
    for row, label in zip(t, y, strict=True):
        highest = row.argmax()
        row[label], row[highest] = row[highest], row[label]
    return ce(s, y) + kd(s, t, y, temperature, 1)


def rc(s: Array, t: Array, y: Any, temperature: float = 4, rc_weight: float = 0.1) -> Array:
    raised = s + onehot(y) * s.max(1, keepdims=True)
    return ce(s, y) + kd(s, t, y, temperature, 1) + rc_weight * kd(s, raised, y, temperature, 1)


def lr(s: Array, t: Array, y: Any, mse_weight: float = 4, share: float = 0.8) -> Array:
    p, q, rows = softmax(t), softmax(s), np.arange(B)
    right = ce(s, y) + mse_weight * ((s - t) ** 2).mean(1)
    b = (share / (p.max(1) - p[rows, y] + 1))[:, None]
    wrong = ((q - (b * p + (1 - b) * onehot(y))) ** 2).mean(1)
    return np.where(t.argmax(1) == y, right, wrong)


def ctkd(s: Array, t: Array, y: Any) -> Array:
    # theta starts at 1, for all rows.
    return 0.1 * ce(s, y) + 0.9 * kd(s, t, y, 1 + 20 / (1 + np.exp(-1)), 1)


def mlkd(s: Array, t: Array, y: Any, temperatures: tuple[float, ...] = (4, 3, 5, 2, 6)) -> Array:
    certain = softmax(t)
    low_rows = certain.max(1) <= np.percentile(certain.max(1), 50)
    low_classes = certain.sum(0) <= np.percentile(certain.sum(0), 50)
    total = np.zeros(B)
    for temperature in temperatures:
        p, q = softmax(t / temperature), softmax(s / temperature)
        total += low_rows * temperature**2 * kl(p, q)
        total += low_rows * ((p @ p.T - q @ q.T) ** 2).sum(1)
        total += ((p.T @ p - q.T @ q) ** 2)[low_classes].sum() / K
    return 0.1 * ce(s, y) + 0.9 * total


def standardised(base: Formula, ddof: int = 1, ce_weight: float = 0.1) -> Formula:
    def of(s: Array, t: Array, y: Any) -> Array:
        z = [
            (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=ddof, keepdims=True) + 1e-7)
            for x in (s, t)
        ]
        return ce_weight * ce(s, y) + 9 * base(*z, y)

    return of


LS = "logit_standardization"
CASES: list[tuple[str, dict[str, Any], Formula]] = [
    ("dkd", {}, dkd),
    (
        "dkd",
        {"alpha": 0.5, "beta": 2, "temperature": 3, "ce_weight": 0.3},
        lambda *z: dkd(*z, alpha=0.5, beta=2, temperature=3, ce_weight=0.3),
    ),
    ("nkd", {}, nkd),
    ("nkd", {"gamma": 2, "temperature": 3}, lambda *z: nkd(*z, gamma=2, temperature=3)),
    ("wsld", {}, wsld),
    ("wsld", {"kd_weight": 1, "temperature": 2}, lambda *z: wsld(*z, 1, 2)),
    ("ttm", {}, ttm),
    ("ttm", {"temperature": 2, "kd_weight": 3}, lambda *z: ttm(*z, 0.5, 3)),
    ("ttm", {"weighted": True}, lambda *z: ttm(*z, weighted=True)),
    ("low_temperature", {}, low_temperature),
    ("low_temperature", {"temperature": 5}, lambda *z: low_temperature(*z, temperature=5)),
    ("rld", {}, rld),
    (
        "rld",
        {"temperature": 2, "confidence_temperature": 3, "alpha": 2, "beta": 1},
        lambda *z: rld(*z, 2, 3, 2, 1),
    ),
    *(
        ("divergence", {"kind": kind, "temperature": t}, divergence(kind, t, share))
        for kind, share in (
            ("forward", 0),
            ("reverse", 0),
            ("symmetric", 0),
            ("jsd", 0.5),
            ("skew", 0.1),
            ("total_variation", 0),
        )
        for t in (1.0, 4.0)
    ),
    ("divergence", {"kind": "jsd", "jsd_weight": 0.2}, divergence("jsd", 4, 0.2)),
    ("divergence", {"kind": "skew", "skew": 0.4}, divergence("skew", 4, 0.4)),
    ("dist", {}, dist),
    ("dist", {"beta": 2, "gamma": 3, "temperature": 4}, lambda *z: dist(*z, 2, 3, 4)),
    ("cist", {}, cist),
    ("cist", {"ratio": 1.5}, lambda *z: cist(*z, 1.5)),
    ("teacher_correction", {}, swap),
    ("teacher_correction", {"correction": "rc", "rc_weight": 0.5}, lambda *z: rc(*z, 4, 0.5)),
    ("teacher_correction", {"correction": "lr"}, lr),
    ("teacher_correction", {"correction": "lr", "share": 0.4}, lambda *z: lr(*z, share=0.4)),
    ("ctkd", {}, ctkd),
    ("ctkd", {"level": "row"}, ctkd),
    ("mlkd", {}, mlkd),
    ("mlkd", {"temperatures": (1.0,)}, lambda *z: mlkd(*z, temperatures=(1,))),
    (LS, {}, standardised(lambda *z: kd(*z, 2, 1))),
    (LS, {"std": "population"}, standardised(lambda *z: kd(*z, 2, 1), ddof=0)),
    (LS, {"base": "dkd"}, standardised(lambda *z: dkd(*z, temperature=2, ce_weight=0))),
    (
        LS,
        {"base": "dkd", "base_fields": "beta=2,warmup_epochs=0", "ce_weight": 1},
        standardised(lambda *z: dkd(*z, beta=2, temperature=2, ce_weight=0), ce_weight=1),
    ),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "fields", "formula"), CASES)
def test_the_loss_is_the_formula(
    name: str, fields: dict[str, Any], formula: Formula, seed: int
) -> None:
    given = random_logits(B, K, seed)
    config = method_config_class(name).model_validate(fields)
    rows = evaluate(config, *given).rows
    np.testing.assert_allclose(
        rows.detach().numpy(), formula(*(z.numpy() for z in given)), rtol=1e-6
    )


def rows_of(name: str, *given: Tensor, **fields: Any) -> Tensor:
    return evaluate(method_config_class(name).model_validate(fields), *given).rows


def term(name: str, *given: Tensor, **fields: Any) -> Tensor:
    """The distillation term alone."""
    return rows_of(name, *given, ce_weight=0, **fields)


def gradient(name: str, *given: Tensor, **fields: Any) -> Tensor:
    student = given[0].clone().requires_grad_()
    [found] = torch.autograd.grad(term(name, student, *given[1:], **fields).sum(), student)
    return found


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor]:
    return random_logits(B, K)


# ---- the two parts of the divergence


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_true_class_and_the_others_in_their_share(given: Any, temperature: float) -> None:
    _, teacher, labels = given
    rest = 1 - (teacher / temperature).softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    same = {"temperature": temperature, "warmup_epochs": 0}
    parts = term("dkd", *given, alpha=1, beta=0, **same)
    parts = parts + rest * term("dkd", *given, alpha=0, beta=1, **same)
    torch.testing.assert_close(rows_of("kd", *given, temperature=temperature, alpha=1), parts)


def test_a_terms_full_weight_comes_after_its_warm_up(given: Any) -> None:
    config = method_config_class("dkd")(ce_weight=0, warmup_epochs=4)
    full = evaluate(config, *given, epoch=3).rows
    for epoch in range(3):
        rows = evaluate(config, *given, epoch=epoch).rows
        torch.testing.assert_close(rows, full * (epoch + 1) / 4)
    torch.testing.assert_close(evaluate(config, *given, epoch=10).rows, full)


# ---- rld


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_rld_is_dkd_where_the_teacher_is_right(given: Any, temperature: float) -> None:
    student, teacher, _ = given
    same = {"alpha": 2.0, "beta": 3.0, "temperature": temperature}
    rld_rows = term(
        "rld", student, teacher, teacher.argmax(1), confidence_temperature=temperature, **same
    )
    torch.testing.assert_close(rld_rows, term("dkd", student, teacher, teacher.argmax(1), **same))


def test_a_class_that_the_teacher_ranks_last_has_none_below_it(given: Any) -> None:
    student, teacher, _ = given
    last = teacher.argmin(1)
    assert (term("rld", student, teacher, last, alpha=0) == 0).all()
    assert (gradient("rld", student, teacher, last, alpha=0) == 0).all()


def test_only_classes_below_the_true_one_learn_the_ranking(given: Any) -> None:
    student, teacher, labels = given
    above = teacher >= teacher.gather(1, labels.unsqueeze(1))
    found = gradient("rld", *given, alpha=0)
    assert (found[above] == 0).all()
    raised = teacher + above * 0.5
    torch.testing.assert_close(
        term("rld", student, raised, labels, alpha=0), term("rld", *given, alpha=0)
    )


def test_a_wrong_teacher_passes_on_its_confidence_and_not_its_error() -> None:
    teacher = torch.tensor([[4.0, 0.0, 0.0]], dtype=torch.float64)
    label, student = torch.tensor([1]), torch.zeros(1, 3, dtype=torch.float64)
    # Descent goes against the gradient: down raises the true class's logit.
    assert gradient("rld", student, teacher, label, beta=0)[0, 1] < 0
    assert gradient("teacher_correction", student, teacher, label)[0, 1] < 0
    student.requires_grad_()
    plain = rows_of("kd", student, teacher, label, alpha=1)
    assert torch.autograd.grad(plain.sum(), student)[0][0, 1] > 0


# ---- logit standardisation

BASES = ["kd", "dkd", "rld", "nkd", "dist", "divergence"]


@pytest.mark.parametrize("base", BASES)
def test_standardised_logits_have_no_scale_and_no_zero(given: Any, base: str) -> None:
    student, teacher, labels = given
    scale = torch.linspace(0.5, 3, B, dtype=torch.float64).unsqueeze(1)
    before = term(LS, *given, base=base)
    after = term(LS, scale * student + 2, teacher / scale - 1, labels, base=base)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(before, term(LS, -student, teacher, labels, base=base))


def test_only_positive_affine_maps_of_the_teacher_agree_with_it(given: Any) -> None:
    _, teacher, labels = given
    torch.testing.assert_close(
        term(LS, 3 * teacher - 1, teacher, labels), torch.zeros(B, dtype=torch.float64)
    )
    assert (term(LS, teacher**3, teacher, labels) > 1e-3).all()


@pytest.mark.parametrize("std", ["unbiased", "population"])
def test_its_gradient_is_that_of_a_temperature_which_the_logits_set(given: Any, std: str) -> None:
    student, teacher, _ = given
    found = gradient(LS, *given, std=std, kd_weight=1)
    centred = student - student.mean(1, keepdim=True)
    divisor = K - 1 if std == "unbiased" else K
    zero = torch.zeros(B, dtype=torch.float64)
    torch.testing.assert_close(found.sum(1), zero, atol=1e-9, rtol=0)
    torch.testing.assert_close((found * centred).sum(1), zero, atol=1e-6, rtol=0)
    # dL/dz = g / s - <g, z - m> / (s^2 (K - 1) std) (z - m) of g = T (q - p), s = std + 1e-7.
    deviation = (centred.square().sum(1, keepdim=True) / divisor).sqrt()
    size = deviation + 1e-7
    its = teacher - teacher.mean(1, keepdim=True)
    its = its / ((its.square().sum(1, keepdim=True) / divisor).sqrt() + 1e-7)
    g = 2 * ((centred / size / 2).softmax(1) - (its / 2).softmax(1))
    along = (g * centred).sum(1, keepdim=True) / (size**2 * divisor * deviation)
    torch.testing.assert_close(found, g / size - along * centred)
    # As if the deviation were a constant, it would be another.
    assert not torch.allclose(found, g / size, rtol=0.05)


def test_equal_logits_are_standardised_to_zeros() -> None:
    teacher, labels = torch.randn(2, K), torch.tensor([0, 1])
    found = gradient(LS, torch.full((2, K), 3.0), teacher, labels)
    assert found.isfinite().all()


# ---- one temperature, or two


def test_low_temperature_is_ttm(given: Any) -> None:
    low = rows_of("low_temperature", *given, temperature=3, kd_weight=2, ce_weight=1)
    torch.testing.assert_close(low, rows_of("ttm", *given, temperature=3, kd_weight=2))


@pytest.mark.parametrize("name", ["low_temperature", "ttm"])
def test_a_student_at_1_agrees_with_a_teacher_at_t(given: Any, name: str) -> None:
    _, teacher, labels = given
    agreed = term(name, teacher / 3, teacher, labels, temperature=3)
    torch.testing.assert_close(agreed, torch.zeros_like(agreed), atol=1e-12, rtol=0)


def test_a_teacher_at_a_very_low_temperature_is_a_hard_label(given: Any) -> None:
    student, teacher, _ = given
    right = teacher.argmax(1)
    rows = rows_of("low_temperature", student, teacher, right, temperature=1e-3)
    expected = torch.nn.functional.cross_entropy(student, right, reduction="none")
    torch.testing.assert_close(rows, expected)


def test_a_teacher_at_a_very_high_temperature_is_uniform(given: Any) -> None:
    found = gradient("low_temperature", *given, temperature=1e6)
    torch.testing.assert_close(found, given[0].softmax(1) - 1 / K, rtol=0, atol=1e-5)


def test_its_gradient_is_the_difference_of_probabilities(given: Any) -> None:
    student, teacher, _ = given
    found = gradient("low_temperature", *given, temperature=2)
    torch.testing.assert_close(found, student.softmax(1) - (teacher / 2).softmax(1))


@pytest.mark.parametrize("name", ["kd", "divergence"])
def test_at_a_high_temperature_distillation_is_the_distance_of_centred_logits(
    given: Any, name: str
) -> None:
    student, teacher, _ = given
    kinds = [{}] if name == "kd" else [{"kind": k} for k in ("forward", "reverse", "symmetric")]
    difference = (student - student.mean(1, keepdim=True)) - (
        teacher - teacher.mean(1, keepdim=True)
    )
    limit = difference.square().sum(1) / (2 * K)
    for kind in kinds:
        rows = rows_of(name, *given, temperature=1e4, alpha=1, **kind)
        torch.testing.assert_close(rows, limit, rtol=1e-3, atol=1e-3)


# ---- divergences


def test_the_forward_divergence_is_kd(given: Any) -> None:
    same = {"temperature": 3, "alpha": 0.3}
    torch.testing.assert_close(
        rows_of("divergence", *given, kind="forward", **same), rows_of("kd", *given, **same)
    )


def test_skew_0_is_the_forward_divergence(given: Any) -> None:
    torch.testing.assert_close(
        rows_of("divergence", *given, kind="skew", skew=0),
        rows_of("divergence", *given, kind="forward"),
    )


def test_bounded_divergences_keep_their_bounds() -> None:
    student, labels = 1e3 * torch.eye(4, dtype=torch.float64), torch.arange(4)
    same = {"temperature": 1, "alpha": 1}
    apart = student.flip(1)
    jsd = rows_of("divergence", student, apart, labels, kind="jsd", **same)
    torch.testing.assert_close(jsd, torch.full_like(jsd, np.log(2)))
    total = rows_of("divergence", student, apart, labels, kind="total_variation", **same)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_gradient_of_the_reverse_divergence(given: Any) -> None:
    student, teacher, labels = given
    student = student.requires_grad_()
    rows = rows_of("divergence", student, teacher, labels, kind="reverse", temperature=2, alpha=1)
    [found] = torch.autograd.grad(rows.sum(), student)
    log_q = (student.detach() / 2).log_softmax(1)
    ratio, q = log_q - (teacher / 2).log_softmax(1), log_q.exp()
    expected = 2 * q * (ratio - (q * ratio).sum(1, keepdim=True))
    torch.testing.assert_close(found, expected)


# ---- constants in the gradient


def test_a_rows_weight_is_a_constant_in_wsld(given: Any) -> None:
    student, teacher, labels = given
    own, its = (
        torch.nn.functional.cross_entropy(z, labels, reduction="none") for z in (student, teacher)
    )
    weight = 2.25 * (1 - (-own / its).exp()).unsqueeze(1)
    expected = 4 * weight * ((student / 4).softmax(1) - (teacher / 4).softmax(1))
    torch.testing.assert_close(gradient("wsld", *given), expected, rtol=1e-5, atol=1e-7)


def test_temperatures_are_constants_in_cist(given: Any) -> None:
    student, teacher, _ = given
    own, its = ((z.amax(1) - z.mean(1)).unsqueeze(1) / 3 for z in (student, teacher))
    expected = 0.9 * its * ((student / own).softmax(1) - (teacher / its).softmax(1))
    torch.testing.assert_close(gradient("cist", *given), expected)


def test_cist_softens_a_teacher_the_same_whatever_its_scale(given: Any) -> None:
    student, teacher, labels = given
    scale = torch.linspace(0.2, 5, B, dtype=torch.float64)
    rows = term("cist", student, scale.unsqueeze(1) * teacher, labels)
    torch.testing.assert_close(rows, scale * term("cist", *given))


# ---- corrected teachers


def test_a_right_teacher_is_not_swapped(given: Any) -> None:
    student, teacher, _ = given
    right = teacher.argmax(1)
    torch.testing.assert_close(
        term("teacher_correction", student, teacher, right),
        rows_of("kd", student, teacher, right, alpha=1),
    )


def test_a_revised_teacher_is_the_label_where_none_of_it_is_kept(given: Any) -> None:
    student, teacher, labels = given
    labels = (teacher.argmax(1) + 1) % K
    rows = rows_of("teacher_correction", student, teacher, labels, correction="lr", share=0)
    onehot_labels = torch.nn.functional.one_hot(labels, K)
    torch.testing.assert_close(rows, (student.softmax(1) - onehot_labels).square().mean(1))


# ---- relations over the batch


@pytest.mark.parametrize("name", ["dist", "mlkd"])
def test_relations_do_not_depend_on_the_order_of_rows_and_classes(given: Any, name: str) -> None:
    student, teacher, labels = given
    before = rows_of(name, *given)
    rows, classes = torch.randperm(B), torch.randperm(K)
    place = classes.argsort()
    after = rows_of(name, student[rows][:, classes], teacher[rows][:, classes], place[labels[rows]])
    torch.testing.assert_close(after, before[rows])


def test_a_class_that_neither_model_distinguishes_adds_nothing_to_dist() -> None:
    same = torch.randn(1, K, dtype=torch.float64).expand(3, K)
    other = torch.randn(1, K, dtype=torch.float64).expand(3, K)
    rows = term("dist", same, other, torch.tensor([0, 1, 2]), beta=0)
    torch.testing.assert_close(rows, torch.zeros_like(rows))


def test_mlkd_compares_rows_of_which_the_teacher_is_unsure(given: Any) -> None:
    _, teacher, _ = given
    confidence = teacher.softmax(1).amax(1)
    sure = confidence > confidence.median()
    parts = evaluate(method_config_class("mlkd")(), *given).parts
    for part in ("kl", "rows"):
        assert torch.equal(parts[part] == 0, sure)


def test_two_views_of_mlkd_add_up(given: Any) -> None:
    config = method_config_class("mlkd")(views=2)
    run = given_run(*given[:2])
    run.config = TrainingConfig(
        model="lenet5", epochs=1, learning_rate=0.1, augmentation={"crop_padding": 1}
    )
    run.another_view = lambda batch: batch
    two = begun(config, run).loss(given_batch(given[2]), run)
    torch.testing.assert_close(two.rows, 2 * rows_of("mlkd", *given))


# ---- learnt temperatures


@pytest.mark.parametrize("level", ["global", "row"])
def test_the_temperature_climbs_where_the_student_descends(given: Any, level: str) -> None:
    run = given_run(*given[:2], epoch=4)
    method = begun(method_config_class("ctkd")(level=level, ce_weight=0), run)
    bias = method.theta if level == "global" else method.theta[-1].bias
    method.loss(given_batch(given[2]), run).rows.mean().backward()

    def loss(theta: float) -> float:
        temperature = 1 + 20 / (1 + np.exp(-theta))
        return 0.9 * float(rows_of("kd", *given, temperature=temperature, alpha=1).mean())

    slope = (loss(1.001) - loss(0.999)) / 0.002
    # Half way through the curriculum of ten epochs the gradient has half its size, reversed.
    assert bias.grad.item() == pytest.approx(-slope / 2, rel=1e-3)


@pytest.mark.parametrize(("epoch", "factor"), [(0, -0.0245), (4, -0.5), (9, -1), (50, -1)])
def test_the_reversal_grows_by_a_cosine(epoch: int, factor: float) -> None:
    assert reversal(epoch, 10) == pytest.approx(factor, abs=1e-3)


# ---- what is refused

BASES_ALLOWED = r"allowed: .*cist, ctkd, dist, .*\bkd\b"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("base=cross_entropy", f"base='cross_entropy' is no method whose .*{BASES_ALLOWED}"),
        ("base=logit_standardization", "base='logit_standardization' is no method whose"),
        ("base=none", "base='none' is no method whose"),
        (
            "base=dkd base_fields=gamma=2",
            "base_fields='gamma=2' is not allowed with base='dkd'; allowed: name=value, names: "
            "alpha, beta, warmup_epochs$",
        ),
        ("base=dkd base_fields=temperature=2", "base_fields='temperature=2' is not allowed"),
        ("base=kd base_fields=alpha=1", "names: scale_by_t2$"),
        ("base=dkd base_fields=beta", "base_fields='beta' is not allowed with base='dkd'"),
        (
            "base=dkd base_fields=beta=-1",
            "base_fields: beta='-1' is not allowed; allowed: number >= 0$",
        ),
        (
            "base=cist temperature=3",
            "temperature=3 is not allowed with base='cist', which has no temperature of this kind",
        ),
        ("std=none", "distillation.std='none' is not allowed; allowed: unbiased | population"),
    ],
)
def test_a_base_that_cannot_be_standardised_is_refused(words: str, message: str) -> None:
    fields = dict(word.split("=", 1) for word in words.split())
    overrides = {f"distillation.{name}": value for name, value in fields.items()}
    line = refusal_of(load_project, "digits", {"method": LS, **overrides})
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("dkd", "beta", "-1"),
        ("nkd", "gamma", "-0.1"),
        ("ttm", "temperature", "0"),
        ("divergence", "kind", "backward"),
        ("divergence", "skew", "1"),
        ("divergence", "jsd_weight", "0"),
        ("cist", "ratio", "0"),
        ("ctkd", "lowest", "0"),
        ("mlkd", "temperatures", "none"),
        ("mlkd", "views", "3"),
        ("teacher_correction", "share", "1.5"),
    ],
)
def test_a_field_out_of_range_is_refused(name: str, field: str, value: str) -> None:
    overrides = {"method": name, f"distillation.{field}": value}
    line = refusal_of(load_project, "digits", overrides)
    assert line.startswith(f"distillation.{field}=")
    assert "allowed: " in line


@pytest.mark.parametrize(
    "config",
    [
        method_config_class("mlkd")(views=2),
        method_config_class("logit_standardization")(base="mlkd", base_fields=("views=2",)),
    ],
)
def test_two_views_without_augmentation_are_refused_before_a_teacher_is_trained(
    config: MethodConfig,
) -> None:
    project = load_project("digits")
    project = project.model_copy(update={"distillation": config})
    workspace: Any = SimpleNamespace(
        dataset=load_dataset(project.dataset, Path()), config=project, processes=1
    )
    line = refusal_of(check_steps, workspace, [distilled_step(project, 0, "0")])
    assert line.startswith(f"method={config.method!r} learns from several views of an image")
