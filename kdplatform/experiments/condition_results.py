"""A command's results under conditions: a study for each condition, logged and printed."""

from collections.abc import Iterator, Sequence

import mlflow

from kdplatform.experiments.conditions import split_under
from kdplatform.experiments.results import arm_metrics, members_of, study_of
from kdplatform.experiments.scheduler import Trained
from kdplatform.reporting.summary import arms_text, sweep_text
from kdplatform.settings.schema import ConditionConfig, ProjectConfig
from kdplatform.settings.words import plain_text
from kdplatform.study.classes import ClassWise
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import condition_metric

_EACH_BY_ITSELF = (
    "each teacher is attacked by itself, so there is no row of them together: one attack on all "
    "would find other images"
)


def log_conditions(
    config: ProjectConfig,
    class_names: Sequence[str],
    trained: Trained,
    *,
    step_scale: int | None = None,
) -> Iterator[str]:
    """Logs each condition's means over seeds to the command's run; yields its table as text.

    The metrics are those of the unchanged test split, below `conditions/<name>/`.

    Args:
        step_scale: factor between temperatures and MLflow's steps, for a sweep; None: there is one
            kind of students.
    """
    for name, condition in config.evaluation.conditions.items():
        study = study_of(config, class_names, trained, split_under(name))
        if not study.arms:
            continue
        classes, groups = ClassWise(study), GroupWise(study)
        members = members_of(config, class_names, trained, split_under(name))
        for arm in study.arms:
            step = round((arm.temperature or 0.0) * (step_scale or 0))
            prefix = f"{arm.method}/" if arm.method and study.has_several_methods else ""
            metrics = arm_metrics(classes, groups, arm)
            logged = {prefix + condition_metric(name, key): v for key, v in metrics.items()}
            mlflow.log_metrics(logged, step=step)
        text = (
            arms_text(classes, groups, members)
            if step_scale is None
            else sweep_text(classes, groups, config.seeds, members)
        )
        if members is not None and condition.attack is not None:
            text += f"\n{_EACH_BY_ITSELF}"
        yield f"under {name} ({condition_words(condition)}):\n{text}"


def condition_words(condition: ConditionConfig) -> str:
    """Returns a condition in words, such as `pgd eps=8/255 steps=20`."""
    fields = condition.given()
    first = fields.pop("attack", None) or fields.pop("corruption", None)
    if condition.attack is not None:
        fields = {"eps": condition.eps, **fields}
        if condition.attack == "pgd":
            fields = {"eps": condition.eps, "steps": condition.steps, **fields}
    else:
        fields = {"severity": condition.severity, **fields}
    return " ".join(
        [str(first), *(f"{name}={plain_text(value)}" for name, value in fields.items())]
    )
