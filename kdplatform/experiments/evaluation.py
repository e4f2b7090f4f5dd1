"""From prediction tables to what a run logs: scalar metrics, per-class and per-group tables."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kdplatform.analysis.calibration import calibrating_temperature, calibration
from kdplatform.analysis.classwise import class_table, overall_accuracy, worst_class
from kdplatform.analysis.disagreement import disagreement, disagreement_by_class
from kdplatform.analysis.group_fairness import METRICS, fairness_metrics, group_table
from kdplatform.analysis.individual_fairness import (
    FeatureSpace,
    factor_space,
    individual_unfairness,
    sample_pairs,
)
from kdplatform.analysis.significance import (
    Counts,
    mcnemar_by_class,
    significance_counts,
    welch_by_class,
)
from kdplatform.roles import Role

_NOT_IN_METRICS = re.compile(r"[^\w .-]|^\.{1,2}\Z")
_LONGEST_PART = 150
# The arms DS is compared with: the count's name in the paper, and the suffix of its columns.
REFERENCES = {Role.TEACHER: "n_tc", Role.STUDENT: "n_sc"}


# The factors that generated datasets are made from, as their predictions carry them: the feature
# space in which examples are similar. No encoder is at hand for the others.
GENERATING_FACTORS = {
    "trifeature": (
        "shape",
        "color",
        "texture",
        "shape_rotation",
        "texture_rotation",
        "position_x",
        "position_y",
    )
}


@dataclass(frozen=True)
class Comparison:
    """DS against Teacher or NDS, class by class."""

    by_class: pd.DataFrame
    counts: Counts


def feature_space(table: pd.DataFrame, dataset_name: str) -> FeatureSpace | None:
    """Returns the space in which a dataset's examples are similar; None where none is known."""
    factors = GENERATING_FACTORS.get(dataset_name, ())
    if not factors or not set(factors) <= set(table.columns):
        return None
    return factor_space(table, factors, dataset_name)


def individual_metrics(
    table: pd.DataFrame, dataset_name: str, calibrating: float
) -> dict[str, float]:
    """Returns the individual unfairness I(f) of one model; nothing without a feature space.

    Args:
        calibrating: the temperature that calibrates the model on validation.
    """
    space = feature_space(table, dataset_name)
    if space is None:
        return {}
    pairs = sample_pairs(space)
    plain = individual_unfairness(table, pairs)
    labels = individual_unfairness(table, pairs, output="labels")
    calibrated = individual_unfairness(table, pairs, temperature=calibrating)
    return {
        "fairness/individual": plain.unfairness,
        "fairness/individual_labels": labels.unfairness,
        "fairness/individual_calibrated": calibrated.unfairness,
    }


def model_metrics(
    test: pd.DataFrame, val: pd.DataFrame, attributes: Sequence[str], dataset_name: str
) -> dict[str, float]:
    """Returns the scalar metrics of one model, named by section."""
    scores = calibration(test)
    worst = worst_class(test)
    calibrating = calibrating_temperature(val)
    metrics = {
        "test/accuracy": overall_accuracy(test),
        "test/worst_class_accuracy": worst.accuracy,
        "test/worst_class": float(worst.label),
        "test/ece": scores.ece,
        "test/brier": scores.brier,
        "test/nll": scores.nll,
        "val/accuracy": overall_accuracy(val),
        "val/calibrating_temperature": calibrating,
        **individual_metrics(test, dataset_name, calibrating),
    }
    for attribute in attributes:
        metrics |= attribute_metrics(test, attribute)
    return metrics


def attribute_metrics(test: pd.DataFrame, attribute: str) -> dict[str, float]:
    """Returns the group fairness of one model for one attribute, named by section."""
    fairness = fairness_metrics(test, attribute)
    return {fairness_metric(attribute, name): getattr(fairness, name) for name in METRICS}


def fairness_metric(attribute: str, name: str) -> str:
    """Returns how a run names a group fairness of an attribute, such as `fairness/color/dpd`."""
    return f"fairness/{in_metric_name(attribute)}/{name}"


def in_metric_name(text: str) -> str:
    """Returns a name of the user's as a part of a metric's name: different for different names.

    MLflow takes letters, digits, `_`, `-`, `.`, `:`, `/` and spaces, no path such as `a//b` or `..`
    and at most 250 characters. Others stand as their code between colons: `a&b` as `a:26:b`.
    """
    spelled = _NOT_IN_METRICS.sub(lambda found: "".join(f":{ord(c):x}:" for c in found[0]), text)
    if len(spelled) <= _LONGEST_PART:
        return spelled
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{spelled[: _LONGEST_PART - len(digest) - 1]}:{digest}"


def class_accuracies(test: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Returns the accuracy of every class of one model, with the classes' names."""
    table = class_table(test, len(class_names))
    table.insert(1, "name", list(class_names))
    return table


def group_accuracies(test: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """Returns size and accuracy of every group of every attribute, for one model."""
    return pd.concat([group_table(test, a) for a in attributes], ignore_index=True)


def compare(
    references: Mapping[Role, Sequence[pd.DataFrame]],
    distilled: Sequence[pd.DataFrame],
    n_classes: int,
) -> dict[Role, Comparison]:
    """Compares DS with Teacher and with NDS, class by class.

    One table per seed. Several seeds: Welch's test over the seeds, as the paper does. One seed:
    McNemar's exact test, which speaks of these two models only. One teacher shared by several
    students has no spread to test against, so it is left out.
    """
    comparisons = {}
    for role, tables in references.items():
        if len(tables) == 1 and len(distilled) == 1:
            by_class = mcnemar_by_class(tables[0], distilled[0], n_classes=n_classes)
        elif len(tables) > 1:
            by_class = welch_by_class(tables, distilled, n_classes=n_classes)
        else:
            continue
        comparisons[role] = Comparison(by_class, significance_counts(by_class))
    return comparisons


def comparison_metrics(comparisons: Mapping[Role, Comparison]) -> dict[str, float]:
    """Returns how many classes differ, beside what chance gives and after correction."""
    metrics: dict[str, float] = {}
    for role, comparison in comparisons.items():
        name, counts = f"classwise/{REFERENCES[role]}", comparison.counts
        metrics |= {
            name: counts.significant,
            f"{name}_expected_by_chance": counts.expected_by_chance,
            f"{name}_bh": counts.significant_bh,
            f"{name}_holm": counts.significant_holm,
        }
    return metrics


def disagreement_metrics(
    references: Mapping[Role, pd.DataFrame], distilled: pd.DataFrame
) -> dict[str, float]:
    """Returns the share of test examples on which DS and each reference differ."""
    return {
        f"disagreement/{role.value}": disagreement(table, distilled)
        for role, table in references.items()
    }


def compared_classes(
    class_names: Sequence[str],
    comparisons: Mapping[Role, Comparison],
    pairs: Mapping[Role, tuple[pd.DataFrame, pd.DataFrame]] | None = None,
) -> pd.DataFrame:
    """Returns one row per class: accuracies of the three arms, tests, disagreement.

    Columns of a comparison end in the role DS is compared with, such as `p_value_teacher`.

    Args:
        pairs: the reference's and the distilled student's table by role, for the disagreement.
    """
    first = next(iter(comparisons.values())).by_class
    columns: dict[str, object] = {
        "class": first["class"],
        "name": list(class_names),
        "n": first["n"],
        "accuracy": first["accuracy_b"],
    }
    kept = ("difference", "p_value", "significant", "p_bh", "p_holm")
    for role, comparison in comparisons.items():
        columns[f"accuracy_{role.value}"] = comparison.by_class["accuracy_a"]
        columns |= {f"{name}_{role.value}": comparison.by_class[name] for name in kept}
    for role, (reference, distilled) in (pairs or {}).items():
        by_class = disagreement_by_class(reference, distilled, len(class_names))
        columns[f"disagreement_{role.value}"] = by_class["disagreement"]
    return pd.DataFrame(columns)


def labelled(frames: Mapping[Role, pd.DataFrame]) -> pd.DataFrame:
    """Returns the roles' frames below each other, with a column that names the role."""
    parts = [frame.assign(role=role.label) for role, frame in frames.items()]
    return pd.concat(parts, ignore_index=True)
