"""Logs a study's results: tables, figures, Optuna's plots, and configurations for `distill`."""

import html
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.time import get_current_time_millis
from optuna import visualization
from optuna.trial import FrozenTrial

from kdplatform.experiments import records
from kdplatform.files import written_atomically
from kdplatform.reporting import tuning_figures
from kdplatform.reporting.tables import csv_text
from kdplatform.settings.paths import with_absolute_paths
from kdplatform.settings.project import dump_yaml
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.metrics import GROUP_REFERENCES, known
from kdplatform.text import visible
from kdplatform.tuning.confirmation import Confirmed, verdict
from kdplatform.tuning.front import Outcome, hypervolume_history
from kdplatform.tuning.measures import MEASURES, Measure
from kdplatform.tuning.references import References
from kdplatform.tuning.selection import (
    FRONT,
    KEEPS,
    KNEE,
    Choice,
    best,
    marked,
    on_front,
)
from kdplatform.tuning.space import Point, first_points
from kdplatform.tuning.trials import RESULT, Evaluated

OPTUNA_PAGE = "figures/optuna.html"
_MARKED = {KNEE: "knee", KEEPS: "fairest with {:.3g} % of its accuracy"}


@dataclass(frozen=True)
class Found:
    """A study's present state.

    Attributes:
        trials: the completed trials, in the order of their numbers.
    """

    config: ProjectConfig
    measure: Measure
    references: References
    study: optuna.Study
    trials: Sequence[Evaluated]

    @property
    def reference_point(self) -> Outcome:
        """The hypervolume's reference point."""
        return self.references.reference_point(self.measure)

    def history(self) -> list[float]:
        """Returns the hypervolume after each completed trial."""
        outcomes = [trial.outcome if trial.feasible else None for trial in self.trials]
        return hypervolume_history(outcomes, self.reference_point)


def trial_table(found: Found) -> pd.DataFrame:
    """Returns one row per completed trial, with its hypervolume so far."""
    on = {trial.number for trial in on_front(found.trials)}
    grid = set(first_points(found.config))
    # A field that a point's method lacks is empty. Columns that every point has come last.
    fields = dict.fromkeys(name for trial in found.trials for name, _ in trial.point.fields)
    rows = []
    for trial, hypervolume in zip(found.trials, found.history(), strict=True):
        value = None if trial.diverged else trial.outcome
        rows.append(
            {
                "trial": trial.number,
                **dict.fromkeys(fields),
                **trial.point.as_dict(),
                "val_accuracy": value.accuracy if value else None,
                f"val_{found.measure.slug}": value.unfairness if value else None,
                "val_worst_group_accuracy": trial.worst_group_accuracy,
                "feasible": trial.feasible,
                "diverged": trial.diverged,
                **{f"constraint_{name}": v for name, v in trial.constraints.items()},
                "front": trial.number in on,
                "grid": trial.point in grid,
                "same_as": trial.same_as,
                "hypervolume": hypervolume,
                "run_id": trial.run_id,
                "models": " ".join(trial.run_ids),
            }
        )
    table = pd.DataFrame(rows)
    # A field that some method lacks is empty there, and pandas would write 2 as 2.0.
    for name in (*fields, "same_as"):
        known = [row[name] for row in rows if row[name] is not None]
        if all(type(value) is int for value in known):
            table[name] = table[name].astype("Int64")
    return table


def log_found(found: Found) -> None:
    """Logs the study's present state to the command's run."""
    mlflow.log_text(csv_text(trial_table(found)), "trials.csv")
    _log_hypervolume(found)
    records.log_figures(_figures(found))
    page = optuna_page(found)
    if page:
        mlflow.log_text(page, OPTUNA_PAGE)


def _log_hypervolume(found: Found) -> None:
    active = mlflow.active_run()
    assert active is not None
    history, now = found.history(), get_current_time_millis()
    metrics = [
        Metric("search/hypervolume", value, now, step)
        for step, value in enumerate(history, start=1)
    ]
    reference = found.reference_point
    metrics += [
        Metric("search/reference_accuracy", reference.accuracy, now, 0),
        Metric("search/reference_unfairness", reference.unfairness, now, 0),
    ]
    # MLflow takes at most a thousand at a time.
    for start in range(0, len(metrics), 1000):
        MlflowClient().log_batch(active.info.run_id, metrics[start : start + 1000])


def _figures(found: Found) -> dict[str, Any]:
    table = trial_table(found)
    shown = table[~table["diverged"] & table["same_as"].isna()]
    if shown.empty:
        return {}
    names = {"val_accuracy": "accuracy", f"val_{found.measure.slug}": "unfairness"}
    references, name = found.references, found.study.study_name
    own = Point.of(found.config).title(found.config)
    shown_points = {f"baseline {own}": references.baseline}
    for label, trial in marked(found.config, references.baseline, found.trials).items():
        words = _MARKED[label].format(100 * found.config.tuning.keep)
        shown_points[words] = trial.outcome
    axis = tuning_figures.Axis(found.measure.label, found.measure.is_share)
    seeds = found.config.tuning.seeds_per_trial
    title = f"{name}: {len(found.trials)} trials, each the mean of {seeds} seeds"
    before = int(table["grid"].head(len(first_points(found.config))).sum())
    return {
        "pareto": tuning_figures.pareto_figure(
            shown.rename(columns=names),
            {"Teacher": references.teacher[::-1], "NDS": references.nds[::-1]},
            {name: outcome[::-1] for name, outcome in shown_points.items()},
            axis,
            title,
        ),
        "hypervolume": tuning_figures.hypervolume_figure(
            found.history(), before, f"{name}: hypervolume, sampler {found.config.tuning.sampler}"
        ),
    }


def optuna_page(found: Found) -> str:
    """Returns Optuna's own plots of the study as one page that needs no network.

    The page is empty if the study has too few trials for every plot.
    """
    with warnings.catch_warnings():
        # Importances of low values are intended, as the text above them says.
        warnings.simplefilter("ignore", UserWarning)
        drawn = list(_optuna_plots(found))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=position == 0)
        for position, figure in enumerate(drawn)
    ]
    if not parts:
        return ""
    head = f'<!doctype html><meta charset="utf-8"><title>{_html(found.study.study_name)}</title>'
    return "\n".join([head, *parts])


def _optuna_plots(found: Found) -> Iterator[Any]:
    study, label = found.study, _html(found.measure.label)
    makers: dict[str, Callable[[], Any]] = {}
    if len(study.directions) > 1:
        reference = list(found.reference_point)
        makers["Hypervolume"] = partial(visualization.plot_hypervolume_history, study, reference)
    # Importances refer to a low value.
    for target, low, name, low_name in (
        (_accuracy, _error, "validation accuracy", "a low validation error"),
        (_unfairness, _unfairness, label, f"a low {label}"),
    ):
        shown: dict[str, Any] = {"target": target, "target_name": name}
        lowered: dict[str, Any] = {"target": low, "target_name": low_name}
        makers |= {
            f"History of {name}": partial(visualization.plot_optimization_history, study, **shown),
            f"What matters for {low_name}": partial(
                visualization.plot_param_importances, study, **lowered
            ),
            f"Points and their {name}": partial(
                visualization.plot_parallel_coordinate, study, **shown
            ),
        }
    for title, make in makers.items():
        try:
            yield make().update_layout(title=title)
        except (RuntimeError, ValueError):
            # Importances need trials that differ. Every plot needs a completed trial.
            continue


def _html(text: str) -> str:
    """Returns text that neither a page nor Plotly, which reads some HTML, treats as markup."""
    return html.escape(visible(text))


def _accuracy(trial: FrozenTrial) -> float:
    return float(trial.user_attrs[RESULT]["accuracy"])


def _error(trial: FrozenTrial) -> float:
    return 1 - _accuracy(trial)


def _unfairness(trial: FrozenTrial) -> float:
    return float(trial.user_attrs[RESULT]["unfairness"])


def save_choices(found: Found, choices: Sequence[Choice], folder: Path) -> Path:
    """Writes the chosen points as configurations that `distill` takes, and logs them.

    Returns:
        The file of the best one.
    """
    chosen = best(found.config, choices)
    titles = {c.point.title(found.config): c for c in choices}
    # Such as front-T4-alpha0.8.
    files = {
        f"{c.name}-{title.replace('=', '').replace(' ', '-')}": c for title, c in titles.items()
    }
    for name, choice in {"best": chosen, **files}.items():
        config = with_absolute_paths(choice.point.config(found.config))
        text = f"{_comment(found, choice)}{dump_yaml(config)}"
        with written_atomically(folder / f"{name}.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
        mlflow.log_text(text, "best.yaml" if name == "best" else f"chosen/{name}.yaml")
    return folder / "best.yaml"


def log_confirmed(measure: Measure, arms: Sequence[Confirmed]) -> None:
    """Logs the results of the fresh seeds: a row per arm and seed, and a row per arm."""
    each, means = [], []
    for arm in arms:
        own = {"arm": arm.title, "chosen_as": arm.choice.name if arm.choice else arm.title}
        again = arm.again[[*Outcome._fields]].add_prefix("val_")
        found = arm.scores.add_prefix("test_").join(again)
        each.append(found.reset_index().assign(**own)[[*own, "seed", *found.columns]])
        means.append({**own, **_summary(arm)})
    seeds = pd.concat(each, ignore_index=True) if each else pd.DataFrame()
    names = {f"{split}_unfairness": f"{split}_{measure.slug}" for split in ("test", "val")}
    tables = {"confirmed": pd.DataFrame(means), "confirmed_seeds": seeds.rename(columns=names)}
    records.log_tables(tables)
    for arm in arms:
        estimates = {name: arm.estimate(name).estimate for name in MEASURES}
        mlflow.log_metrics(
            {
                f"confirmed/{label}/{name}": value
                for label in (arm.choice.labels if arm.choice else ())
                for name, value in known(estimates).items()
                if label != FRONT
            }
        )


def _summary(arm: Confirmed) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in MEASURES:
        searched = arm.choice.found._asdict().get(name) if arm.choice else None
        row |= {
            **arm.estimate(name).columns(name),
            f"{name}_as_searched": searched,
            f"{name}_searched_again": arm.again[name].mean(skipna=False),
        }
        if name in arm.differences:
            row |= {
                **arm.differences[name].interval.columns(f"{name}_minus_baseline"),
                f"{name}_p_holm": arm.p_holm[name],
                f"{name}_verdict": verdict(arm, name),
            }
    for role, changes in arm.groups.items():
        count = f"n_{GROUP_REFERENCES[role]}"
        row |= {
            count: changes.counts.significant,
            f"{count}_expected_by_chance": changes.counts.expected_by_chance,
            f"{count}_holm": changes.counts.significant_holm,
        }
    return row


def _comment(found: Found, choice: Choice) -> str:
    accuracy, unfairness = choice.found
    study, label = visible(found.study.study_name), found.measure.label
    return (
        f"# {choice.name} of study {study}: {choice.point.title(found.config)}\n"
        f"# validation accuracy {accuracy:.4f}, {label} {unfairness:.4f}, mean of "
        f"{found.config.tuning.seeds_per_trial} seeds\n"
        "# taken up with: -P config=<this file>\n"
    )
