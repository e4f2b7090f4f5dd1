"""Studies of the tracking store, for a notebook or a program."""

from collections.abc import Mapping

from kdplatform.experiments import report
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.tracking import quiet_mlflow
from kdplatform.settings.project import load_project
from kdplatform.study.study import Study

_NONE: Mapping[str, object] = {}


def load_study(
    project: str,
    fields: Mapping[str, object] = _NONE,
    *,
    condition: str = "",
    intersections: bool = True,
) -> Study:
    """Reads the predictions of a project's runs, as `kdplatform report` does.

    Args:
        project: a name in `projects/`, or the path of a YAML file.
        fields: the values of configuration fields that the runs were made with, such as
            `{"temperatures": "1,4", "seeds": "0-4", "student.epochs": 3}`.
        condition: condition of the predictions; empty: the unchanged test split.
        intersections: whether pairs of attributes are compared too.

    Returns:
        Arms by seeds of prediction tables; `study.metrics` is the frame of all numbers.

    Raises:
        UserError: a field is unknown or has no allowed value, or the store has no such study.
        MachineError: the store does not answer.
    """
    quiet_mlflow()
    given = {name: str(value) for name, value in fields.items()}
    config = load_project(project, given)
    with store_errors():
        return report.load_study(config, given.keys(), intersections, condition)
