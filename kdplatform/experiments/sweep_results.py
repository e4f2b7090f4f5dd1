"""What a sweep says at its end: the arms over the temperatures, as metrics, tables and text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import mlflow
import numpy as np
import pandas as pd

from kdplatform.analysis.permutation import permute_seeds
from kdplatform.errors import UserError
from kdplatform.experiments import evaluation, records
from kdplatform.experiments.evaluation import REFERENCES, Comparison
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.summary import (
    arm_metrics,
    means_over_seeds,
    shown_cells,
    shown_columns,
)
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.reporting.tables import EMPTY, text_table
from kdplatform.roles import Role

# MLflow's steps are integers below 2^63; nobody needs finer temperatures.
_MOST_DECIMALS = 6


@dataclass(frozen=True)
class AtTemperature:
    """The distilled students of one temperature, and how they differ from Teacher and NDS.

    Attributes:
        models: one per seed that was trained.
        metrics: one row per model.
        pairs: one row per model: columns n_tc and n_sc, the classes that McNemar's test finds
            different between the model and the Teacher and NDS of its seed.
        comparisons: Welch's tests over the seeds, for the arms that have more than one.
        permutation_p: p of the global permutation test of the seeds, for the same arms.
    """

    temperature: float
    models: Sequence[TrainedModel]
    metrics: pd.DataFrame
    pairs: pd.DataFrame
    comparisons: Mapping[Role, Comparison]
    permutation_p: Mapping[Role, float]


@dataclass(frozen=True)
class SweepResults:
    """A study in numbers.

    Attributes:
        references: metrics of Teacher and NDS, one row per model.
    """

    references: Mapping[Role, pd.DataFrame]
    temperatures: Sequence[AtTemperature]


def sweep_results(workspace: Workspace, trained: Trained) -> SweepResults:
    """Derives a study's numbers from its test predictions, as far as its units were trained."""
    references = {role: trained.of_role(role) for role in REFERENCES}
    distilled = trained.of_role(Role.DISTILLED)
    return SweepResults(
        {role: arm_metrics(workspace, models) for role, models in references.items() if models},
        [
            _at_temperature(workspace, temperature, models, references)
            for temperature in workspace.config.temperatures
            if (
                models := [m for m in distilled if m.step.method.softmax_temperature == temperature]
            )
        ],
    )


def _at_temperature(
    workspace: Workspace,
    temperature: float,
    models: Sequence[TrainedModel],
    references: Mapping[Role, Sequence[TrainedModel]],
) -> AtTemperature:
    classes = len(workspace.dataset.class_names)
    tables = {role: [model.test for model in arm] for role, arm in references.items()}
    distilled = [model.test for model in models]
    comparisons = evaluation.compare(tables, distilled, classes) if len(models) > 1 else {}
    pairs = []
    for model in models:
        own = _references_of(workspace, model, references)
        compared = evaluation.compare(own, [model.test], classes)
        pairs.append({REFERENCES[role]: c.counts.significant for role, c in compared.items()})
    return AtTemperature(
        temperature,
        models,
        arm_metrics(workspace, models),
        pd.DataFrame(pairs),
        comparisons,
        {role: permute_seeds(tables[role], distilled).p_count for role in comparisons},
    )


def _references_of(
    workspace: Workspace,
    model: TrainedModel,
    references: Mapping[Role, Sequence[TrainedModel]],
) -> dict[Role, list[pd.DataFrame]]:
    """Returns the tables of the Teacher a distilled student learnt from and the NDS of its seed."""
    seed = model.step.seed
    seeds = {Role.TEACHER: workspace.config.teacher_seed(seed), Role.STUDENT: seed}
    return {
        role: [reference.test for reference in references[role] if reference.step.seed == own]
        for role, own in seeds.items()
    }


def step_scale(temperatures: Sequence[float]) -> int:
    """Returns what temperatures are multiplied by to become MLflow's steps, which are integers.

    1 for whole temperatures, otherwise the power of ten that makes all of them whole: each has a
    step of its own, and their distances on a chart are true.

    Raises:
        UserError: a temperature has too many decimals.
    """
    decimals = max(_decimals(temperature) for temperature in temperatures)
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


def log_sweep(results: SweepResults) -> None:
    """Logs a study to the command's run, against the temperature.

    Metrics have `step` = temperature times `step_scale` (logged as parameter `step_scale`); those
    of Teacher and NDS are the same at every step. Tables: `sweep.json` has one row per temperature
    and seed, `references.json` one per Teacher and NDS, `temperatures.json` one per temperature.
    """
    if not results.temperatures:
        return
    scale = step_scale([at.temperature for at in results.temperatures])
    mlflow.log_param("step_scale", scale)
    rows = []
    for at in results.temperatures:
        metrics = temperature_metrics(results, at)
        mlflow.log_metrics(metrics, step=round(at.temperature * scale))
        rows.append({"temperature": at.temperature, "seeds": _seeds(at), **metrics})
    distilled = [_rows(at).assign(temperature=at.temperature) for at in results.temperatures]
    references = [metrics.assign(role=role.label) for role, metrics in results.references.items()]
    records.log_tables(
        {
            "sweep": pd.concat(distilled, ignore_index=True),
            "references": pd.concat(references, ignore_index=True),
            "temperatures": pd.DataFrame(rows),
        }
    )


def temperature_metrics(results: SweepResults, at: AtTemperature) -> dict[str, float]:
    """Returns what is logged at a temperature: means over seeds by role, and class-wise counts.

    `classwise/n_sc` and `n_tc` are of Welch's test over the seeds, `..._permutation_p` is the
    global test of that count. Where there is one seed or one teacher, `..._mcnemar` in their place
    is the mean over seeds of the counts of McNemar's test.
    """
    metrics = means_over_seeds({**results.references, Role.DISTILLED: at.metrics})
    metrics |= evaluation.comparison_metrics(at.comparisons)
    for role, name in REFERENCES.items():
        if role in at.comparisons:
            metrics[f"classwise/{name}_permutation_p"] = at.permutation_p[role]
        else:
            metrics[f"classwise/{name}_mcnemar"] = float(at.pairs[name].mean())
    metrics["temperature"] = at.temperature
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _rows(at: AtTemperature) -> pd.DataFrame:
    identity = pd.DataFrame(
        {
            "seed": [model.step.seed for model in at.models],
            "run_id": [model.run_id for model in at.models],
        }
    )
    return pd.concat([identity, at.metrics, at.pairs.add_suffix("_mcnemar")], axis=1)


def sweep_text(workspace: Workspace, results: SweepResults) -> str:
    """Returns the table printed at the end of a sweep."""
    columns = shown_columns(workspace.config.attributes)
    none = [EMPTY] * len(REFERENCES)
    rows = [
        [role.label, *shown_cells(metrics, columns), *none]
        for role, metrics in results.references.items()
    ]
    for at in results.temperatures:
        counts = [_count_cell(at, role) for role in REFERENCES]
        title = f"{Role.DISTILLED.label} T={at.temperature:g}"
        rows.append([title, *shown_cells(at.metrics, columns), *counts])
    lines = [text_table(["", *columns, *REFERENCES.values()], rows)]
    seeds = workspace.config.seeds
    spread = f"mean ± standard deviation of {len(seeds)} seeds"
    lines.append(f"in %, test split, {spread if len(seeds) > 1 else f'seed {seeds[0]}'}")
    lines.extend(
        f"T={at.temperature:g} has seeds {_seeds(at)} alone"
        for at in results.temperatures
        if len(at.models) < len(seeds)
    )
    return "\n".join([*lines, *_reading(results)])


def _count_cell(at: AtTemperature, role: Role) -> str:
    if role in at.comparisons:
        counts = at.comparisons[role].counts
        return f"{counts.significant} of {counts.tested}"
    return f"{at.pairs[REFERENCES[role]].mean():.3g} (McNemar)"


def _reading(results: SweepResults) -> list[str]:
    if not results.temperatures:
        return []
    lines = ["n_tc, n_sc: classes whose accuracy differs from Teacher and NDS at p < .05"]
    welch = [c for at in results.temperatures for c in at.comparisons.values()]
    if welch:
        chance = max(comparison.counts.expected_by_chance for comparison in welch)
        lines.append(f"(Welch's test over the seeds); chance alone gives about {chance:.1f}")
    if any(len(at.comparisons) < len(REFERENCES) for at in results.temperatures):
        lines.append("(McNemar): exact test of each pair of models, mean over seeds; where there")
        lines.append("is one seed, or one teacher for all, no test over seeds is possible")
    return lines


def _seeds(at: AtTemperature) -> str:
    return ",".join(str(model.step.seed) for model in at.models)
