"""The figures of a comparison, from prediction tables and the table of compared classes."""

from collections.abc import Iterable, Mapping

import pandas as pd

from kdplatform.analysis.disagreement import disagreement_matrix
from kdplatform.data import Dataset
from kdplatform.experiments import evaluation
from kdplatform.experiments.identity import LABELS, Role
from kdplatform.reporting import figures
from kdplatform.reporting.figures import Drawing


def class_figure(
    classes: pd.DataFrame,
    references: Iterable[Role],
    title: str,
    spread: Mapping[Role, pd.Series] | None = None,
) -> Drawing:
    """Draws the class accuracies of DS and what it is compared with.

    Args:
        classes: as `evaluation.compared_classes` gives it.
        spread: standard deviation over seeds of every class's accuracy, by role.
    """
    named = classes.set_index("name")
    references = list(references)
    accuracies = pd.DataFrame(
        {LABELS[role]: named[f"accuracy_{role.value}"] for role in references}
        | {LABELS[Role.DISTILLED]: named["accuracy"]}
    )
    deviations = None
    if spread is not None:
        deviations = pd.DataFrame({LABELS[role]: sd.to_numpy() for role, sd in spread.items()})
    significant = {LABELS[role]: list(named[f"significant_{role.value}"]) for role in references}
    return figures.class_accuracy_figure(accuracies, significant, title, deviations)


def comparison_figures(
    dataset: Dataset,
    attributes: tuple[str, ...],
    arms: Mapping[Role, pd.DataFrame],
    test: pd.DataFrame,
    classes: pd.DataFrame,
    title: str,
) -> dict[str, Drawing]:
    """Draws one distilled student against its teacher and the NDS."""
    matrices = {
        LABELS[role]: disagreement_matrix(table, test, len(dataset.class_names))
        for role, table in arms.items()
    }
    drawn = {
        "class_accuracy": class_figure(classes, arms, title),
        "disagreement": figures.disagreement_figure(matrices, dataset.class_names, title),
    }
    if attributes:
        groups = evaluation.labelled(
            {
                role: evaluation.group_accuracies(table, attributes)
                for role, table in {**arms, Role.DISTILLED: test}.items()
            }
        )
        drawn["group_accuracy"] = figures.group_accuracy_figure(groups, title)
    return drawn
