"""The runs of a study in the tracking store, found by their keys among any number of others."""

import json
from collections.abc import Callable, Iterable
from itertools import islice

from mlflow.entities import Run

from kdplatform.errors import UserError
from kdplatform.experiments.graph import Step, study_steps
from kdplatform.experiments.records import DIGEST_LENGTH
from kdplatform.experiments.run_search import finished_with_keys, models_of, run_pages, search_runs
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig, flatten

# Number of runs in a first look: enough to see usual values, and read in one request.
_LOOK = 100
# A search excludes at most this many values. Each is a join, and SQLite joins up to 64 tables.
_MOST_EXCLUDED = 40


def dataset_digest(config: ProjectConfig) -> tuple[str, list[str]]:
    """Returns the digest of the project's dataset from the newest matching run.

    Returns:
        The digest, and a remark if runs with the same settings have other data.

    Raises:
        UserError: no run of the project has these settings of the dataset.
    """
    models = models_of(config.name)
    matching = (
        digest
        for page in run_pages(models, _LOOK)
        for run in page
        if (digest := _matching_digest(config, run))
    )
    newest = next(matching, "")
    if not newest:
        raise UserError(nothing_found(config))
    others: dict[str, int] = {}
    for run in search_runs(f"{models} and dataset.digest != '{newest[:DIGEST_LENGTH]}'"):
        if older := _matching_digest(config, run):
            others[older] = others.get(older, 0) + 1
    return newest, [
        f"{number} runs on other data of the same settings (digest {digest[:12]} instead of "
        f"{newest[:12]})"
        for digest, number in others.items()
    ]


def _matching_digest(config: ProjectConfig, run: Run) -> str:
    """Returns the digest of a run's dataset if its settings are the project's, otherwise nothing.

    A setting that a run has not logged did not exist at that time.
    """
    wanted = {name: str(value) for name, value in flatten(config.dataset, "dataset.").items()}
    logged = run.data.params
    if all(logged.get(name, value) == value for name, value in wanted.items()):
        return _logged_digest(run)
    return ""


def _logged_digest(run: Run) -> str:
    """Returns the whole digest of the dataset that a run logged; empty if it logged none."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    for entry in inputs:
        try:
            tags = json.loads(entry.dataset.source)["tags"]
            return str(tags["kd.digest"])
        except (ValueError, KeyError, TypeError):
            continue
    return ""


def widened(config: ProjectConfig, given: set[str]) -> ProjectConfig:
    """Returns the configuration with the seeds and temperatures that any run of the project has.

    Args:
        given: names of fields that stay as they are.
    """
    update: dict[str, object] = {}
    if "seeds" not in given:
        found = _values(config, "tags.`kd.seed`", map(str, config.seeds), _seed)
        update["seeds"] = tuple(sorted({*config.seeds, *map(int, found)}))
    if "temperatures" not in given:
        column = "params.`distillation.temperature`"
        found = _values(config, column, map(str, config.temperatures), _temperature)
        update["temperatures"] = tuple(sorted({*config.temperatures, *map(float, found)}))
    return config.model_copy(update=update)


def _seed(run: Run) -> str:
    return str(run.data.tags["kd.seed"])


def _temperature(run: Run) -> str:
    return str(run.data.params["distillation.temperature"])


def _values(
    config: ProjectConfig, column: str, known: Iterable[str], value_of: Callable[[Run], str]
) -> set[str]:
    """Returns the values of a column in a project's runs, without reading all of the runs.

    Runs with known values are excluded. The remaining runs show further values, which are excluded
    in turn, until no run is left.
    """
    found, models = set(known), models_of(config.name)
    while len(found) <= _MOST_EXCLUDED:
        excluded = "".join(f" and {column} != '{value}'" for value in sorted(found))
        page = next(run_pages(models + excluded, _LOOK), [])
        if not page:
            return found
        found |= {value_of(run) for run in page}
    excluded = "".join(
        f" and {column} != '{value}'" for value in islice(sorted(found), _MOST_EXCLUDED)
    )
    return found | {value_of(run) for run in search_runs(models + excluded)}


def trained_steps(config: ProjectConfig, digest: str) -> list[tuple[Step, list[Run]]]:
    """Returns the study's steps that have been trained, with their runs, the newest first."""
    steps = study_steps(config, digest, config.temperatures)
    found = finished_with_keys([step.key for step in steps], config.name)
    return [(step, found[step.key]) for step in steps if step.key in found]


def nothing_found(config: ProjectConfig) -> str:
    """Explains why a project has no distilled run of its configuration, by its newest run."""
    allowed = "allowed: the settings that sweep or distill were given"
    runs = next(run_pages(models_of(config.name)), [])
    if not runs:
        return (
            f"project={config.name!r} has no FINISHED run in the tracking store; run distill or "
            "sweep first, or set MLFLOW_TRACKING_URI to the store it wrote to"
        )
    wanted = {name: str(value) for name, value in flatten(config).items()}
    distilled = [run for run in runs if run.data.tags["kd.role"] == Role.DISTILLED.value]
    for run in distilled or runs:
        for name, value in run.data.params.items():
            if name != "distillation.temperature" and wanted.get(name, value) != value:
                return (
                    f"project={config.name!r}: {name} is {wanted[name]!r} here and {value!r} in "
                    f"run {run.info.run_id}, and no distilled run has this configuration; {allowed}"
                )
    return (
        f"project={config.name!r}: none of its FINISHED runs is a distilled student of this "
        f"configuration; {allowed}"
    )
