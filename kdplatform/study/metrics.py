"""The metrics of a model under the names that runs, studies, reports and the tuner share."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdplatform.analysis.calibration import calibrating_temperature, calibration
from kdplatform.analysis.classwise import class_table, worst_class
from kdplatform.analysis.disagreement import disagreement
from kdplatform.analysis.group_cells import Cells
from kdplatform.analysis.group_fairness import METRICS, fairness_metrics
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.individual_fairness import (
    Neighbours,
    Pairs,
    consistency,
    factor_space,
    individual_unfairness,
    nearest_neighbours,
    sample_pairs,
)
from kdplatform.analysis.significance import Counts, mcnemar_by_class, significance_counts
from kdplatform.analysis.tables import Attribute, attribute_name, quotient
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.study.factors import GENERATING_FACTORS
from kdplatform.study.groups import compare_groups
from kdplatform.text import as_typed

# The roles that DS is compared with, and the paper's name for the classes that differ.
REFERENCES = {Role.TEACHER: "tc", Role.STUDENT: "sc"}
# The same for groups.
GROUP_REFERENCES = {Role.TEACHER: "tg", Role.STUDENT: "sg"}

ACCURACY = "test/accuracy"
WORST_CLASS_ACCURACY = "test/worst_class_accuracy"
ECE = "test/ece"
# How fast a model was trained: the median over its epochs.
SPEED = "training/images_per_second"
CALIBRATING_TEMPERATURE = "val/calibrating_temperature"
ECE_CALIBRATED = "test/ece_calibrated"
INDIVIDUAL = "fairness/individual"
INDIVIDUAL_LABELS = "fairness/individual_labels"
INDIVIDUAL_CALIBRATED = "fairness/individual_calibrated"
CONSISTENCY = "fairness/consistency"
# The metrics of one model's logits and of its pairs of similar examples.
SCORES = (
    *(ECE, ECE_CALIBRATED, "test/brier", "test/nll"),
    *(INDIVIDUAL, INDIVIDUAL_LABELS, INDIVIDUAL_CALIBRATED, CONSISTENCY),
)

_NOT_IN_METRICS = re.compile(r"[^\w .-]|^\.{1,2}\Z")
_LONGEST_PART = 150


class Similarity(NamedTuple):
    """The pairs of similar examples that all models of a study are measured on."""

    pairs: Pairs
    neighbours: Neighbours | None = None


def similarity(
    table: Predictions, dataset_name: str, *, neighbours: bool = False
) -> Similarity | None:
    """Returns the pairs of examples of a split; None if no feature space is known.

    Args:
        neighbours: whether the nearest neighbours are searched as well, for the consistency.
    """
    factors = GENERATING_FACTORS.get(dataset_name, ())
    if not factors or not set(factors) <= set(table.columns):
        return None
    space = factor_space(table, factors, dataset_name)
    return Similarity(sample_pairs(space), nearest_neighbours(space) if neighbours else None)


def fairness_metric(attribute: Attribute, name: str) -> str:
    """Returns the name of a group fairness metric of an attribute, such as `fairness/color/dpd`."""
    return f"fairness/{in_metric_name(attribute_name(attribute))}/{name}"


def in_metric_name(text: str) -> str:
    """Returns a user's name as a part of a metric's name; different names stay different.

    MLflow accepts letters, digits, `_`, `-`, `.`, `:`, `/` and spaces. It accepts no path such as
    `a//b` or `..`, and at most 250 characters. Other characters become their code between colons:
    `a&b` becomes `a:26:b`.
    """
    spelled = _NOT_IN_METRICS.sub(lambda found: "".join(f":{ord(c):x}:" for c in found[0]), text)
    if len(spelled) <= _LONGEST_PART:
        return spelled
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{spelled[: _LONGEST_PART - len(digest) - 1]}:{digest}"


def condition_metric(condition: str, name: str) -> str:
    """Returns the name of a metric under a condition, such as `conditions/pgd20/test/accuracy`."""
    return f"conditions/{condition}/{name}"


def model_metrics(
    test: Predictions,
    val: Predictions,
    attributes: Sequence[str],
    min_group_size: int,
    dataset_name: str,
) -> dict[str, float]:
    """Returns all metrics that the run of one model logs about its own predictions."""
    return own_metrics(test, val, attributes, min_group_size, dataset_name)


def own_metrics(
    test: Predictions,
    val: Predictions | None,
    attributes: Sequence[str],
    min_group_size: int,
    dataset_name: str,
) -> dict[str, float]:
    """Returns `model_metrics`, without those of validation if its predictions are missing."""
    calibrating = float("nan") if val is None else calibrating_temperature(val)
    of_val = {} if val is None else {"val/accuracy": val.accuracy}
    if val is not None:
        of_val[CALIBRATING_TEMPERATURE] = calibrating
    return {
        **compared_metrics(test, attributes, min_group_size),
        "test/worst_class": float(worst_class(test).label),
        **of_val,
        **score_metrics(test),
        **individual_metrics(test, similarity(test, dataset_name), calibrating),
    }


def compared_metrics(
    test: Predictions, attributes: Sequence[Attribute], min_group_size: int
) -> dict[str, float]:
    """Returns the metrics that arms are compared by: accuracy and group fairness."""
    metrics = {ACCURACY: test.accuracy, WORST_CLASS_ACCURACY: worst_class(test).accuracy}
    for attribute in attributes:
        metrics |= group_metrics(test, attribute, min_group_size)
    return metrics


def group_metrics(
    table: Predictions, attribute: Attribute, min_group_size: int
) -> dict[str, float]:
    """Returns the group fairness of one model for one attribute."""
    fairness = fairness_metrics(table, attribute, min_group_size=min_group_size)
    return {fairness_metric(attribute, name): getattr(fairness, name) for name in METRICS}


def compared_names(attributes: Sequence[Attribute]) -> list[str]:
    """Returns the names of `compared_metrics`."""
    groups = [fairness_metric(attribute, name) for attribute in attributes for name in METRICS]
    return [ACCURACY, WORST_CLASS_ACCURACY, *groups]


def group_notes(
    table: Predictions, attributes: Sequence[Attribute], min_group_size: int
) -> list[str]:
    """Returns one line per attribute: the groups that are too small, and what leaves them out."""
    found = [fairness_metrics(table, name, min_group_size=min_group_size) for name in attributes]
    return [f"{each.attribute}: {as_typed(each.note)}" for each in found if each.note]


def score_metrics(test: Predictions, calibrating: float = float("nan")) -> dict[str, float]:
    """Returns the scores of one model's probabilities; nothing without logits.

    Args:
        calibrating: as in `individual_metrics`.
    """
    if test.logits is None:
        return {}
    scores = {f"test/{name}": value for name, value in calibration(test)._asdict().items()}
    if np.isfinite(calibrating):
        scores[CALIBRATING_TEMPERATURE] = calibrating
        scores[ECE_CALIBRATED] = calibration(test, temperature=calibrating).ece
    return scores


def individual_metrics(
    test: Predictions, similar: Similarity | None, calibrating: float = float("nan")
) -> dict[str, float]:
    """Returns the individual unfairness I(f) of one model; nothing without a feature space.

    Args:
        calibrating: the temperature that calibrates the model on validation; NaN if it is not
            known.
    """
    if similar is None:
        return {}
    pairs, neighbours = similar
    labels = individual_unfairness(test, pairs, output="labels").unfairness
    metrics = {INDIVIDUAL_LABELS: labels}
    if neighbours is not None:
        metrics[CONSISTENCY] = consistency(test, neighbours)
    if test.logits is None:
        return metrics
    metrics[INDIVIDUAL] = individual_unfairness(test, pairs).unfairness
    if np.isfinite(calibrating):
        calibrated = individual_unfairness(test, pairs, temperature=calibrating)
        metrics[INDIVIDUAL_CALIBRATED] = calibrated.unfairness
    return metrics


def count_metrics(role: Role, counts: Counts) -> dict[str, float]:
    """Returns how many classes differ, the number by chance, and the corrected numbers."""
    return _counted(class_count(role), counts)


def group_count_metrics(role: Role, counts: Counts) -> dict[str, float]:
    """Returns how many groups changed, the number by chance, and the corrected numbers."""
    return _counted(group_count(role), counts)


def class_count(role: Role) -> str:
    """Returns the name of the number of classes that differ, such as `classwise/n_sc`."""
    return f"classwise/n_{REFERENCES[role]}"


def group_count(role: Role) -> str:
    """Returns the name of the number of groups that changed, such as `groupwise/n_sg`."""
    return f"groupwise/n_{GROUP_REFERENCES[role]}"


def _counted(name: str, counts: Counts) -> dict[str, float]:
    return {
        name: counts.significant,
        f"{name}_expected_by_chance": counts.expected_by_chance,
        f"{name}_bh": counts.significant_bh,
        f"{name}_holm": counts.significant_holm,
    }


def pair_metrics(
    role: Role,
    reference: Predictions,
    distilled: Predictions,
    n_classes: int,
    attributes: Sequence[Attribute] | Cells = (),
    min_group_size: int = MIN_GROUP_SIZE,
) -> dict[str, float]:
    """Returns how one distilled student differs from its teacher or NDS: McNemar, disagreement.

    Args:
        attributes: the attributes whose groups are compared, or their cells; if empty, no group is
            compared.
    """
    by_class = mcnemar_by_class(reference, distilled, n_classes=n_classes)
    metrics = {
        **count_metrics(role, significance_counts(by_class)),
        f"disagreement/{role.value}": disagreement(reference, distilled),
    }
    if isinstance(attributes, Cells) or attributes:
        size = min_group_size
        groups = compare_groups([reference], [distilled], attributes, min_group_size=size)
        metrics |= group_count_metrics(role, groups.counts)
    return metrics


def class_shift(reference: Predictions, distilled: Predictions) -> float:
    """The difference between the class accuracies of two models, without the overall accuracy.

    It is the mean over classes of |acc_c(f) / acc(f) - acc_c(g) / acc(g)|. The paper tests for each
    class whether this difference is 0. NaN if a model is never right.
    """
    relative = []
    for each in (reference, distilled):
        by_class = class_table(each)
        present = by_class["n"] > 0
        relative.append(quotient(by_class["accuracy"][present].to_numpy(), each.accuracy))
    return float(np.mean(np.abs(relative[1] - relative[0])))


def known(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics that are defined; MLflow accepts no others."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
