"""Teacher, NDS and DS class by class and group by group: the tables and figures that runs log."""

import pandas as pd

from kdplatform.analysis.classwise import class_table, class_table_over_seeds
from kdplatform.analysis.disagreement import disagreement_matrix
from kdplatform.analysis.group_fairness import group_table
from kdplatform.predictions import Predictions
from kdplatform.reporting import figures
from kdplatform.reporting.figures import Drawing
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise, class_disagreement
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm, Study

_KEPT = ("difference", "p_value", "significant", "p_bh", "p_holm")


def class_accuracies(test: Predictions, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Returns the accuracy of every class of one model, with the classes' names."""
    table = class_table(test, len(class_names))
    table.insert(1, "name", list(class_names))
    return table


def group_accuracies(
    test: Predictions, attributes: tuple[str, ...], min_group_size: int
) -> pd.DataFrame:
    """Returns size and accuracy of every group of every attribute, for one model."""
    tables = [group_table(test, name, min_group_size=min_group_size) for name in attributes]
    return pd.concat(tables, ignore_index=True)


def compared_classes(classes: ClassWise, arm: Arm) -> pd.DataFrame:
    """Returns one row per class: accuracies of DS and its references, and the tests.

    Columns of a comparison end with the role that DS is compared with, such as `p_value_teacher`.
    """
    tests = {
        role: classes.tests[arm, role].table for role in REFERENCES if (arm, role) in classes.tests
    }
    first = next(iter(tests.values()))
    columns: dict[str, object] = {
        "class": first["class"],
        "name": list(classes.study.class_names),
        "n": first["n"],
        "accuracy": first["accuracy_b"],
    }
    for role, table in tests.items():
        columns[f"accuracy_{role.value}"] = table["accuracy_a"]
        columns |= {f"{name}_{role.value}": table[name] for name in _KEPT}
    return pd.DataFrame(columns)


def with_disagreement(compared: pd.DataFrame, study: Study, arm: Arm) -> pd.DataFrame:
    """Adds the share of every class on which DS and each reference differ."""
    shares = {
        f"disagreement_{role.value}": class_disagreement(study, arm, role)
        for role in REFERENCES
        if Arm(role) in study.arms
    }
    return compared.assign(**shares)


def class_figure(classes: ClassWise, arm: Arm, title: str) -> Drawing:
    """Draws the class accuracies of DS and its references."""
    compared = compared_classes(classes, arm).set_index("name")
    roles = [role for role in REFERENCES if (arm, role) in classes.tests]
    accuracies = pd.DataFrame(
        {role.label: compared[f"accuracy_{role.value}"] for role in roles}
        | {Role.DISTILLED.label: compared["accuracy"]}
    )
    deviations = None
    if len(classes.study.seeds(arm)) > 1:
        deviations = pd.DataFrame(
            {
                own.role.label: class_table_over_seeds(classes.accuracies[own])["accuracy_sd"]
                for own in (*map(Arm, roles), arm)
            }
        )
    significant = {role.label: list(compared[f"significant_{role.value}"]) for role in roles}
    return figures.class_accuracy_figure(accuracies, significant, title, deviations)


def model_figures(classes: ClassWise, arm: Arm, title: str) -> dict[str, Drawing]:
    """Draws one distilled student against its teacher and the NDS."""
    study = classes.study
    matrices = {
        role.label: disagreement_matrix(*pair, len(study.class_names))
        for role in REFERENCES
        for pair in study.pairs_with(role, arm)
    }
    drawn = {
        "class_accuracy": class_figure(classes, arm, title),
        "disagreement": figures.disagreement_figure(matrices, study.class_names, title),
    }
    attributes = tuple(name for name in study.attributes if isinstance(name, str))
    if attributes:
        groups = [
            group_accuracies(study.tables(own)[0], attributes, study.min_group_size).assign(
                role=own.role.label
            )
            for own in study.arms
        ]
        drawn["group_accuracy"] = figures.group_accuracy_figure(
            pd.concat(groups, ignore_index=True), title
        )
    return drawn
