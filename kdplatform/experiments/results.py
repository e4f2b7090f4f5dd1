"""A command's trained models as a Study, and the logging of the study to its run."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import mlflow
import pandas as pd

from kdplatform.analysis.group_cells import WITHIN_CLASS
from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.experiments import records
from kdplatform.experiments.ensembles import taught_by
from kdplatform.experiments.graph import Step, arm_keys
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.predictions import Predictions
from kdplatform.reporting import figures
from kdplatform.reporting.arm_figures import class_figure, compared_classes
from kdplatform.reporting.over_temperature import temperature_figures
from kdplatform.roles import Role
from kdplatform.settings.schema import DistillationConfig, ProjectConfig
from kdplatform.study.classes import ClassWise
from kdplatform.study.groups import GroupComparison
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import (
    REFERENCES,
    SCORES,
    class_count,
    compared_names,
    count_metrics,
    group_count,
    group_count_metrics,
    known,
)
from kdplatform.study.over_seeds import arm_statistics, class_statistics, group_statistics
from kdplatform.study.study import MEMBER, NDS, TEACHER, Arm, Model, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# MLflow's steps are integers below 2^63, which limits the decimals of temperatures.
_MOST_DECIMALS = 6


def arm_of(step: Step) -> Arm:
    """Returns the arm of a study that a step's model belongs to."""
    return Arm(step.role) if step.distillation is None else arm_by(step.distillation)


def arm_by(method: DistillationConfig) -> Arm:
    """Returns the arm of the students that a method distils."""
    temperature = method.softmax_temperature
    settings = () if temperature is None else (("temperature", temperature),)
    return Arm(Role.DISTILLED, method.method, settings)


def study_of(
    config: ProjectConfig,
    class_names: Sequence[str],
    trained: Trained,
    split: str = "test",
    *,
    with_scores: bool = False,
) -> Study:
    """Returns trained models as a study; several teachers of one student form one model.

    A teacher that is a file without rows of the split is left out.

    Args:
        split: the split of the study's predictions, such as the test split under a condition.
        with_scores: whether measures of logits are read from the models' runs.
    """
    arms: dict[Arm, dict[int, Model]] = {}
    compared = arm_keys(trained.steps)
    for model in trained.models.values():
        if model.step.key not in compared or not model.has(split):
            continue
        own = arms.setdefault(arm_of(model.step), {})
        logged = model.run.data.metrics if with_scores else {}
        scores = {name: logged[name] for name in SCORES if name in logged}
        own[model.step.seed] = Model(model.run_id, model.predictions(split), scores)
        if together := _together(model.step, trained.models, split):
            seed = config.teacher_seed(model.step.seed)
            arms.setdefault(TEACHER, {}).setdefault(seed, Model("", together))
    return Study(
        config.name,
        tuple(class_names),
        by_role(arms),
        config.attributes,
        config.min_group_size,
        config.shared_teacher_seed,
    )


def _together(step: Step, models: Mapping[str, TrainedModel], split: str) -> Predictions | None:
    """Returns the mixture of several teachers of a student; None if it has one teacher."""
    needed = {name: models[own.key] for name, own in step.teachers.items() if own.key in models}
    if len(step.teachers) < 2 or len(needed) < len(step.teachers):
        return None
    return taught_by(step, needed, split)


def members_of(
    config: ProjectConfig, class_names: Sequence[str], trained: Trained, split: str = "test"
) -> Study | None:
    """Returns several teachers of one student as a separate study, with an arm for each.

    None if students have one teacher.
    """
    steps = {
        own.key: own
        for step in trained.steps
        if len(step.teachers) > 1
        for own in step.teachers.values()
    }
    arms: dict[Arm, dict[int, Model]] = {}
    for key, step in steps.items():
        model = trained.models.get(key)
        if model is not None and model.has(split):
            label = step.label or f"seed {step.seed}"
            arms[Arm(Role.TEACHER, settings=((MEMBER, label),))] = {
                step.seed: Model(model.run_id, model.predictions(split))
            }
    if not arms:
        return None
    names = tuple(class_names)
    return Study(config.name, names, arms, config.attributes, config.min_group_size)


def by_role(arms: Mapping[Arm, Mapping[int, Model]]) -> dict[Arm, Mapping[int, Model]]:
    """Returns arms in the order of a table: Teacher, NDS, then DS.

    Arms of DS are in the order of their methods, and within a method by rising temperature.
    """
    roles, methods = list(Role), list(dict.fromkeys(arm.method for arm in arms))

    def place(arm: Arm) -> tuple[int, int, float]:
        return roles.index(arm.role), methods.index(arm.method), arm.temperature or 0.0

    return {arm: arms[arm] for arm in sorted(arms, key=place)}


def log_samples(dataset: Dataset) -> None:
    """Logs a sheet of training images, if the data are images."""
    train = dataset.train
    if not dataset.facts().holds_images or train.inputs.ndim != 4:
        return
    title = f"{dataset.name}: training samples"
    sheet = figures.contact_sheet(train.inputs, train.labels, dataset.class_names, title)
    records.log_figures({"samples": sheet})


def log_arms(classes: ClassWise, groups: GroupWise) -> None:
    """Logs the comparison of Teacher, NDS and one kind of DS to the command's run."""
    study = classes.study
    metrics: dict[str, float] = {}
    for arm in study.arms:
        metrics |= _means(study, arm)
    for (_, role), test in classes.tests.items():
        metrics |= count_metrics(role, test.counts)
    for (_, role), shifts in groups.tests.items():
        metrics |= group_count_metrics(role, shifts.counts)
    mlflow.log_metrics(metrics)
    if groups.tests:
        records.log_tables({"group_shifts": groups.table()})
    if not classes.tests:
        return
    [arm] = study.distilled
    labels = [Role(role).label for role in study.metrics["role"]]
    summary = study.metrics[compared_names(study.attributes)].assign(role=labels)
    records.log_tables({"classwise": compared_classes(classes, arm), "summary": summary})
    seeds = study.seeds(arm)
    words = f"mean ± standard deviation of {len(seeds)} seeds"
    title = f"Teacher, NDS and DS, {words if len(seeds) > 1 else f'seed {seeds[0]}'}"
    records.log_figures({"class_accuracy": class_figure(classes, arm, f"{study.name}: {title}")})


def log_members(members: Study | None) -> None:
    """Logs several teachers of one student to the command's run, as `teachers.json`."""
    if members is not None:
        rows = members.metrics[["arm", "run_id", *compared_names(members.attributes)]]
        records.log_tables({"teachers": rows})


def log_sweep(classes: ClassWise, groups: GroupWise) -> None:
    """Logs a study over temperatures and methods to the command's run, against the temperature.

    Metrics have `step` = temperature times `step_scale` (logged as parameter `step_scale`), or 0 if
    the method has no temperature. Metrics of Teacher and NDS are the same at every step. With
    several methods, names begin with the method's name. Tables: `sweep.json` has one row per arm
    and seed, `references.json` one per Teacher and NDS, `temperatures.json` one per arm,
    `group_shifts.json` one per arm, reference and group.
    """
    study = classes.study
    if not study.distilled:
        return
    scale = step_scale([arm.temperature or 0.0 for arm in study.distilled])
    mlflow.log_param("step_scale", scale)
    constant: dict[str, float] = {}
    for reference in (TEACHER, NDS):
        constant |= _means(study, reference) if reference in study.arms else {}
    rows, steps = [], set[int]()
    for arm in study.distilled:
        metrics, prefix = (
            arm_metrics(classes, groups, arm),
            f"{arm.method}/" if study.has_several_methods else "",
        )
        step = round((arm.temperature or 0.0) * scale)
        named = {f"{prefix}{name}": value for name, value in metrics.items()}
        mlflow.log_metrics(named if step in steps else constant | named, step=step)
        steps.add(step)
        seeds = ",".join(map(str, study.seeds(arm)))
        rows.append({"arm": study.names[arm], "seeds": seeds, **constant, **metrics})
    frame, names = study.metrics, compared_names(study.attributes)
    names_of_counts = (
        count for role in REFERENCES for count in (class_count(role), group_count(role))
    )
    counts = {name: f"{name.partition('/')[2]}_mcnemar" for name in names_of_counts}
    distilled = frame[frame["role"] == Role.DISTILLED.value]
    own = ["arm", "seed", "run_id", *names, *(name for name in counts if name in frame)]
    columns = [*own, "temperature"]
    references = frame[frame["role"] != Role.DISTILLED.value]
    if groups.tests:
        shifts = groups.table()
        # Groups within classes would be thousands of rows, so only a report has them.
        whole = shifts[shifts["kind"] != WITHIN_CLASS]
        records.log_tables({"group_shifts": whole.drop(columns=["label", "class"])})
    records.log_tables(
        {
            "sweep": distilled[columns].rename(columns=counts),
            "references": references[names].assign(
                role=[Role(role).label for role in references["role"]]
            ),
            "temperatures": pd.DataFrame(rows),
        }
    )
    log_views(classes, scale)


def log_views(classes: ClassWise, scale: int) -> None:
    """Logs a study's views to the command's run: tables, and figures with their axis.

    `arms.json` has every metric of every arm with mean, deviation and interval over seeds;
    `classes.json` and `groups.json` have the accuracy of every class and group of every arm in the
    same form. Figures show the metrics over the temperature. The run's description says what the
    step of a chart is.
    """
    study = classes.study
    statistics = arm_statistics(study)
    views = {"arms": statistics, "classes": class_statistics(classes)}
    if study.attributes:
        views["groups"] = group_statistics(study)
    records.log_tables(views)
    drawn: dict[str, Figure | figures.Drawing] = dict(temperature_figures(statistics))
    records.log_figures(drawn)
    step = "the temperature T" if scale == 1 else f"the temperature T times {scale}"
    mlflow.set_tag(
        "mlflow.note.content",
        f"The step of a chart is {step}; choose the metric `temperature` as its x-axis for T "
        f"itself. `figures/over_T_...png` have T as their axis, with 95% intervals over "
        f"{len(study.all_seeds)} seeds. Tables: `arms.json`, `classes.json`"
        + (", `groups.json`." if study.attributes else "."),
    )


def arm_metrics(classes: ClassWise, groups: GroupWise, arm: Arm) -> dict[str, float]:
    """Returns the logged metrics of an arm: means over seeds, and counts of classes and groups.

    `classwise/n_sc` and `n_tc` come from Welch's test over the seeds, and `..._permutation_p` is
    the global test of that count. With one seed or one teacher, `..._mcnemar` replaces them: the
    mean over seeds of the counts of McNemar's test. `groupwise/n_sg` and `n_tg` come from the
    paired t test over seeds, also with one teacher for all seeds. With one seed `..._mcnemar`
    replaces them too.
    """
    study = classes.study
    metrics = {} if arm.temperature is None else {"temperature": arm.temperature}
    metrics |= _means(study, arm)
    for role in REFERENCES:
        test, shifts = classes.over_seeds(arm, role), groups.over_seeds(arm, role)
        if test is None:
            metrics |= _mean_of_pairs(study, arm, class_count(role))
        else:
            metrics |= count_metrics(role, test.counts)
            assert test.permutation is not None
            metrics[f"{class_count(role)}_permutation_p"] = test.permutation.p_count
        if shifts is None:
            metrics |= _mean_of_pairs(study, arm, group_count(role))
        else:
            metrics |= _shift_metrics(role, shifts)
    return known(metrics)


def _shift_metrics(role: Role, shifts: GroupComparison) -> dict[str, float]:
    counts = group_count_metrics(role, shifts.counts)
    return {**counts, f"{group_count(role)}_permutation_p": shifts.permutation_p}


def log_group_counts(groups: GroupWise) -> None:
    """Logs how many groups of each arm changed, as `log_sweep` logs its metrics by temperature."""
    study = groups.study
    scale = step_scale([arm.temperature or 0.0 for arm in study.distilled])
    for arm in study.distilled:
        prefix = f"{arm.method}/" if study.has_several_methods else ""
        for role in REFERENCES:
            if (arm, role) in groups.tests:
                metrics = known(_shift_metrics(role, groups.tests[arm, role]))
                named = {f"{prefix}{name}": value for name, value in metrics.items()}
                mlflow.log_metrics(named, step=round((arm.temperature or 0.0) * scale))


def _mean_of_pairs(study: Study, arm: Arm, count: str) -> dict[str, float]:
    """Returns the mean over seeds of a count of McNemar's test; empty if there is none."""
    pairs = study.values(arm, count)
    return {f"{count}_mcnemar": float(pairs.mean())} if len(pairs) else {}


def _means(study: Study, arm: Arm) -> dict[str, float]:
    """Returns mean, standard deviation and 95% interval over seeds, named `role/metric`.

    Names of deviations and limits end with `_sd`, `_low` and `_high`; they exist for several seeds.
    """
    found: dict[str, float] = {}
    for row in arm_statistics(study, [arm]).to_dict("records"):
        name = f"{arm.role.value}/{row['metric']}"
        found[name] = float(row["mean"])
        found |= {f"{name}_{part}": float(row[part]) for part in ("sd", "low", "high")}
    return known(found)


def step_scale(temperatures: Sequence[float]) -> int:
    """Returns the factor between temperatures and MLflow's steps, which are integers.

    It is 1 for whole temperatures, otherwise the power of ten that makes all of them whole. Each
    temperature then has its own step, and distances on a chart are correct.

    Raises:
        UserError: a temperature has too many decimals.
    """
    decimals = max(map(_decimals, temperatures), default=0)
    if decimals > _MOST_DECIMALS:
        raise UserError(
            f"temperatures={','.join(map(str, temperatures))} is not allowed; allowed: at most "
            f"{_MOST_DECIMALS} decimals"
        )
    return int(10**decimals)


def _decimals(temperature: float) -> int:
    exponent = Decimal(repr(temperature)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)
