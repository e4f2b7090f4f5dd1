"""What a command says at its end: the three arms over all seeds, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd

from kdplatform.analysis.classwise import (
    class_table_over_seeds,
    overall_accuracy,
    worst_class,
)
from kdplatform.data import Dataset
from kdplatform.experiments import drawing, evaluation, records
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.reporting import figures
from kdplatform.reporting.tables import EMPTY, percent, text_table
from kdplatform.roles import Role

Arms = Mapping[Role, Sequence[TrainedModel]]


@dataclass(frozen=True)
class Summary:
    """The comparison over seeds.

    Attributes:
        metrics: by role, one value per seed.
    """

    metrics: Mapping[Role, pd.DataFrame]
    comparisons: Mapping[Role, evaluation.Comparison]


def summarise(workspace: Workspace, arms: Arms) -> Summary:
    """Derives from the test predictions of all seeds what the table and the parent run show."""
    metrics = {role: arm_metrics(workspace, models) for role, models in arms.items()}
    comparisons = {}
    if Role.DISTILLED in arms:
        comparisons = evaluation.compare(
            {role: [m.test for m in arms[role]] for role in evaluation.REFERENCES},
            [model.test for model in arms[Role.DISTILLED]],
            len(workspace.dataset.class_names),
        )
    return Summary(metrics, comparisons)


def log_summary(workspace: Workspace, arms: Arms, summary: Summary) -> None:
    """Logs the comparison to the command's run."""
    dataset = workspace.dataset
    means = means_over_seeds(summary.metrics)
    mlflow.log_metrics(means | evaluation.comparison_metrics(summary.comparisons))
    log_samples(dataset)
    if not summary.comparisons:
        return
    classes = evaluation.compared_classes(dataset.class_names, summary.comparisons)
    records.log_tables({"classwise": classes, "summary": _summary_table(summary)})
    title = f"{workspace.config.name}: Teacher, NDS and DS, {_seed_words(arms)}"
    figure = drawing.class_figure(classes, summary.comparisons, title, _spread(arms))
    records.log_figures({"class_accuracy": figure})


def log_samples(dataset: Dataset) -> None:
    """Logs a sheet of training images, where they are, so that one sees what was trained on."""
    if not dataset.facts().holds_images:
        return
    train = dataset.train
    if train.inputs.ndim != 4:  # no images
        return
    title = f"{dataset.name}: training samples"
    sheet = figures.contact_sheet(train.inputs, train.labels, dataset.class_names, title)
    records.log_figures({"samples": sheet})


def _spread(arms: Arms) -> dict[Role, pd.Series] | None:
    if len(arms[Role.DISTILLED]) == 1:
        return None
    tables = {role: class_table_over_seeds([m.test for m in arms[role]]) for role in arms}
    return {role: table["accuracy_sd"] for role, table in tables.items()}


def summary_text(workspace: Workspace, arms: Arms, summary: Summary) -> str:
    """Returns the table printed at the end of a command."""
    columns = shown_columns(workspace.config.attributes)
    compared = bool(summary.comparisons)
    rows = []
    for role, values in summary.metrics.items():
        row = [role.label, *shown_cells(values, columns)]
        rows.append([*row, *(_counts(summary, role) if compared else [])])
    header = ["", *columns, *(evaluation.REFERENCES.values() if compared else [])]
    lines = [text_table(header, rows), f"in %, test split, {_seed_words(arms)}"]
    return "\n".join([*lines, *([_reading(summary, arms)] if compared else [])])


def shown_columns(attributes: Sequence[str]) -> dict[str, str]:
    """Returns the columns of a printed table: heading and name of the metric."""
    columns = {"accuracy": "test/accuracy"}
    for attribute in attributes:
        columns |= {
            f"DPD {attribute}": evaluation.fairness_metric(attribute, "dpd"),
            f"EOD {attribute}": evaluation.fairness_metric(attribute, "eod"),
        }
    return columns


def shown_cells(values: pd.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """Returns a row of a printed table: per cent, mean and standard deviation over seeds."""
    return [percent(values[name].tolist()) for name in columns.values()]


def arm_metrics(workspace: Workspace, models: Sequence[TrainedModel]) -> pd.DataFrame:
    """Returns the metrics of an arm that are compared over seeds, one row per model."""
    return pd.DataFrame([_metrics(workspace, model.test) for model in models])


def _metrics(workspace: Workspace, test: pd.DataFrame) -> dict[str, float]:
    metrics = {
        "test/accuracy": overall_accuracy(test),
        "test/worst_class_accuracy": worst_class(test).accuracy,
    }
    for attribute in workspace.config.attributes:
        metrics |= evaluation.attribute_metrics(test, attribute)
    return metrics


def means_over_seeds(metrics: Mapping[Role, pd.DataFrame]) -> dict[str, float]:
    """Returns mean, and standard deviation of several seeds, named `role/metric`.

    Args:
        metrics: by role, one row per seed.
    """
    flat: dict[str, float] = {}
    for role, values in metrics.items():
        for name in values.columns:
            flat[f"{role.value}/{name}"] = float(values[name].mean())
            if len(values) > 1:
                flat[f"{role.value}/{name}_sd"] = float(values[name].std(ddof=1))
    return {name: value for name, value in flat.items() if np.isfinite(value)}


def _summary_table(summary: Summary) -> pd.DataFrame:
    return pd.concat(
        [values.assign(role=role.label) for role, values in summary.metrics.items()],
        ignore_index=True,
    )


def _counts(summary: Summary, role: Role) -> list[str]:
    """Returns the cells of n_tc and n_sc, which belong to DS."""
    cells = []
    for reference in evaluation.REFERENCES:
        comparison = summary.comparisons.get(reference)
        if role is not Role.DISTILLED or comparison is None:
            cells.append(EMPTY)
        else:
            cells.append(f"{comparison.counts.significant} of {comparison.counts.tested}")
    return cells


def _reading(summary: Summary, arms: Arms) -> str:
    counts = next(iter(summary.comparisons.values())).counts
    if len(arms[Role.DISTILLED]) == 1:
        test = "exact McNemar test of this one pair of models"
    else:
        test = "Welch's test over the seeds"
    lines = [
        "n_tc, n_sc: classes whose accuracy differs from Teacher and NDS at p < .05",
        f"({test}); chance alone gives about {counts.expected_by_chance:.1f}",
    ]
    if Role.TEACHER not in summary.comparisons:
        lines.append("n_tc needs a teacher per seed: one shared teacher has no spread")
    return "\n".join(lines)


def _seed_words(arms: Arms) -> str:
    seeds = [model.step.seed for model in list(arms.values())[-1]]
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"mean ± standard deviation of {len(seeds)} seeds"
