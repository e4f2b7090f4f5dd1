"""What the tuner costs per trial beyond training.

    python -m benchmarks.tuning                       # 200 trials, SQLite
    python -m benchmarks.tuning --storage journal:///study.log --out tuning.json

Everything is real but the training: an executor hands back, at once, runs whose predictions were
made up beforehand. Optuna draws and keeps the trials, each trial's run is logged to MLflow (SQLite
too), its seeds' validation predictions are read and judged. One worker, so that trials do not
overlap; the first trials are counted by themselves, since Optuna's cost grows with the study.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from kdplatform.cli import read_words
from kdplatform.data import Split, load_dataset
from kdplatform.experiments import records
from kdplatform.experiments.executors import Assignment, Outcome
from kdplatform.experiments.tracking import log_verified_artifacts, prepare_store, quiet_mlflow
from kdplatform.files import home_folder
from kdplatform.predictions import Predictions
from kdplatform.settings.project import load_project
from kdplatform.tuning import command, search, trial_runs, tuner

TARGET = 0.3
_RUNS = 12
_FIRST = 20


class Stub:
    """An executor that trains nothing."""

    slots = 1

    def __init__(self, runs: Sequence[str]) -> None:
        self._runs = runs
        self._count = 0

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Hands back the next of the runs."""
        self._count += 1
        future: Future[Outcome] = Future()
        future.set_result(Outcome(self._runs[self._count % len(self._runs)]))
        return future

    def __enter__(self) -> "Stub":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def predictions(split: Split, classes: int, seed: int) -> pd.DataFrame:
    """Predictions of which a tenth is wrong."""
    random = np.random.default_rng(seed)
    labels = split.labels.numpy()
    wrong = random.random(len(labels)) < 0.1
    predicted = np.where(wrong, (labels + 1) % classes, labels)
    table = pd.DataFrame({"id": split.ids, "label": labels, "prediction": predicted})
    table["logits"] = list(random.normal(size=(len(labels), classes)).astype(np.float32))
    return pd.concat([table, split.columns.reset_index(drop=True)], axis=1)


def make_runs(project: str) -> list[str]:
    """Logs runs that hold predictions and nothing else."""
    config = load_project(project)
    dataset = load_dataset(config.dataset, home_folder() / "datasets")
    runs = []
    for seed in range(_RUNS):
        with mlflow.start_run() as run, tempfile.TemporaryDirectory() as name:
            for split in ("val", "test"):
                table = predictions(dataset.splits()[split], len(dataset.class_names), seed)
                Predictions.of(table).write(Path(name) / records.PREDICTIONS.format(split=split))
            log_verified_artifacts(Path(name))
            runs.append(run.info.run_id)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="trifeature")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--storage", default="auto")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    out = options.out.resolve() if options.out else None
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        mlflow.set_tracking_uri(f"sqlite:///{name}/mlflow.db")
        quiet_mlflow()
        prepare_store()
        stub = Stub(make_runs(options.project))
        tuner.open_executor = lambda *arguments, **named: stub  # type: ignore[assignment]
        ends: list[float] = []
        processor: list[float] = []
        log_result = trial_runs.log_result

        def timed(*arguments: object) -> None:
            log_result(*arguments)  # type: ignore[arg-type]
            ends.append(time.perf_counter())
            processor.append(time.process_time())

        search.log_result = timed
        words = {"project": options.project, "trials": options.trials, "confirm_seeds": 0}
        words |= {"sampler": options.sampler, "storage": options.storage, "tuning.grid": "false"}
        arguments = read_words("tune", [f"--{name}={value}" for name, value in words.items()])
        config = load_project(arguments.project, arguments.overrides)
        command.run_tune(config, arguments)
        os.chdir("/")
    first, last = ends[:_FIRST], ends[-_FIRST:]
    seconds = {
        "mean": (ends[-1] - ends[0]) / (len(ends) - 1),
        "processor": (processor[-1] - processor[0]) / (len(processor) - 1),
        f"first {_FIRST}": (first[-1] - first[0]) / (len(first) - 1),
        f"last {_FIRST}": (last[-1] - last[0]) / (len(last) - 1),
    }
    print(f"\n{'trials':<12} {'s per trial':>12}")
    for part, value in seconds.items():
        print(f"{part:<12} {value:>12.3f}")
    print(f"target: at most {TARGET:g} s over {len(ends)} trials, storage {options.storage}")
    if out:
        out.write_text(json.dumps({"seconds": seconds, "trials": len(ends)}, indent=2))


if __name__ == "__main__":
    main()
