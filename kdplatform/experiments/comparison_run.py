"""The run of a comparison: its results, its page, and links to the compared runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run

from kdplatform.experiments.conditions import split_under
from kdplatform.experiments.gate_run import log_gate
from kdplatform.experiments.run_names import named_run
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.stored_predictions import TEST
from kdplatform.experiments.tracking import (
    artifact_digests,
    begin_command,
    opened_run,
    quiet_mlflow,
)
from kdplatform.experiments.trained import PREDICTIONS
from kdplatform.experiments.weights import WEIGHTS
from kdplatform.files import scratch_folder
from kdplatform.redaction import redacted
from kdplatform.reporting.cards.facts import CardFacts
from kdplatform.reporting.cards.write import FOLDER as CARDS
from kdplatform.reporting.cards.write import write_cards
from kdplatform.reporting.comparison import Comparison
from kdplatform.reporting.comparison_rows import A, B
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.gates import JudgedGate
from kdplatform.study.metrics import compared_names, count_metrics, known
from kdplatform.study.provenance import Provenance, Source

ROLE = "comparison"
# Number of characters of a tag that MLflow's database keeps.
_LONGEST_TAG = 5000


def source_of_run(run_id: str, condition: str = "") -> Source:
    """Returns a run with the digests of its predictions and weights. The run has been read before.

    Args:
        condition: condition of the predictions; empty: the unchanged test split.
    """
    digests = artifact_digests(MlflowClient().get_run(run_id))
    table = PREDICTIONS.format(split=split_under(condition)) if condition else TEST
    name = f"{run_id}@{condition}" if condition else run_id
    return Source(name, digests[table], digests.get(WEIGHTS, ""), run_id)


@contextmanager
def comparison_run(sides: Sequence[Sequence[str]], title: str) -> Iterator[str]:
    """Opens the run of a comparison, in the experiment of side B's runs if there are any.

    Args:
        sides: the runs or files of A and of B, as they were given.
    """
    quiet_mlflow()
    begin_command()
    with store_errors():
        runs = {
            name: MlflowClient().get_run(run.run_id)
            for side in sides
            for name in side
            if (run := named_run(name))
        }
        own = [runs[name] for name in sides[1] if name in runs] or list(runs.values())
        tags = {"kd.command": "compare", "kd.role": ROLE}
        for letter, side in zip("ab", sides, strict=True):
            tags[f"kd.{letter}"] = redacted(",".join(side))[:_LONGEST_TAG]
        experiment = None
        if own:
            tags["kd.project"] = own[0].data.tags.get("kd.project", "")
            experiment = MlflowClient().get_experiment(own[0].info.experiment_id).name
        tags["mlflow.note.content"] = _note(sides, runs)
        with opened_run(f"compare {title}", experiment, tags) as run_id:
            yield run_id


def _note(sides: Sequence[Sequence[str]], runs: Mapping[str, Run]) -> str:
    """Describes the comparison in Markdown with links, for the run's page in MLflow."""
    lines = ["Side B compared with side A, the reference.", ""]
    for letter, side in zip("AB", sides, strict=True):
        for name in side:
            shown = f"`{name}`"
            if run := runs.get(name):
                link = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
                _, at, condition = name.partition("@")
                shown = f"[{run.info.run_name}{at}{condition}]({link})"
            lines.append(f"- {letter}: {shown}")
    return redacted("\n".join(lines))[:_LONGEST_TAG]


def log_comparison(
    comparison: Comparison,
    provenance: Provenance,
    text: str,
    settings: Mapping[str, str],
    written: Sequence[Path],
    gate: JudgedGate | None,
) -> None:
    """Logs a comparison to the active run.

    Args:
        settings: parameters as they were given.
        written: the page and its tables.
    """
    run = mlflow.active_run()
    assert run is not None
    # `mlflow run` has logged its own parameters. A second spelling of the same value would be
    # refused.
    there = MlflowClient().get_run(run.info.run_id).data.params
    mlflow.log_params({k: redacted(v) for k, v in settings.items() if k not in there})
    mlflow.log_metrics(metrics_of(comparison))
    mlflow.log_text(text, "summary.txt")
    mlflow.set_tag("kd.verdict", provenance.verdict[:_LONGEST_TAG])
    for path in written:
        mlflow.log_artifact(str(path), "comparison")
    if gate is not None:
        log_gate(gate)


def log_cards(facts: CardFacts) -> None:
    """Logs the cards of side B to the active run."""
    with scratch_folder() as folder:
        write_cards(facts, folder)
        mlflow.log_artifacts(str(folder), CARDS)


def metrics_of(comparison: Comparison) -> dict[str, float]:
    """Returns a comparison's metrics: `a/...`, `b/...` and their `difference/...`, and counts."""
    study = comparison.study
    frame = study.metrics
    found: dict[str, float] = {}
    names = [name for name in _own_metrics(comparison) if name in frame]
    for name in names:
        a, b = study.values(A, name), study.values(B, name)
        if len(a) and len(b):
            found |= {f"a/{name}": float(np.mean(a)), f"b/{name}": float(np.mean(b))}
            found[f"difference/{name}"] = float(np.mean(b) - np.mean(a))
    test = ClassWise(study).tests.get((B, Role.STUDENT))
    if test is not None:
        found |= count_metrics(Role.STUDENT, test.counts)
    return known(found)


def _own_metrics(comparison: Comparison) -> list[str]:
    scores = [model.scores for arms in comparison.study.arms.values() for model in arms.values()]
    every = dict.fromkeys(name for each in scores for name in each)
    return [*compared_names(comparison.study.attributes), *every]
