"""Measures `report` on a store of predictions as large as they come.

    python -m benchmarks.large_report --out large.json          # 100,000 x 1,000, 20 arms x 2 seeds
    python -m benchmarks.large_report --rows 2000 --classes 50  # to see that it runs
    python -m benchmarks.large_report --keep --folder /big/disk # the store stays for another look

The store has finished runs of a project: a teacher, an NDS and students at 18 temperatures, each
with as many seeds as asked for, and with test predictions and logits as a training writes them.
Nothing is trained: logits are drawn so that about 70% of the examples are right, with errors that
most models share. Every example has a group of three attributes (2, 5 and 10 groups); `report`
compares their pairs too.

What is measured is the command in a process of its own: its seconds, its processor seconds and
its peak memory.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from kdplatform.experiments import records
from kdplatform.experiments.graph import Step, study_steps
from kdplatform.experiments.tracking import (
    TRAINING_EXAMPLES,
    command_run,
    model_run,
    prepare_store,
    quiet_mlflow,
)
from kdplatform.experiments.trained import TAG_NEEDS
from kdplatform.experiments.weights import WEIGHTS
from kdplatform.predictions import Predictions
from kdplatform.reporting.arm_figures import class_accuracies
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.metrics import CALIBRATING_TEMPERATURE

GROUPS = {"young": 2, "region": 5, "color": 10}
# Limits of the command at the default size: seconds on two cores, and MiB.
SECONDS, MEBIBYTES = 600.0, 8 * 1024.0
DIGEST = "d" * 64
_PROJECT = """\
name: large
dataset: {{name: table, file: {folder}/table.csv, label: label, attributes: "{attributes}"}}
teacher: {{model: mlp_large, epochs: 1, batch_size: 64, optimizer: sgd, learning_rate: 0.1}}
student: {{model: mlp_small, epochs: 1, batch_size: 64, optimizer: sgd, learning_rate: 0.1}}
distillation: {{temperature: 4, alpha: 0.8}}
temperatures: "{temperatures}"
seeds: "{seeds}"
attributes: "{attributes}"
"""


def write_project(folder: Path, arms: int, seeds: int) -> Path:
    """Writes the project of a teacher, an NDS and students at as many temperatures as are left."""
    (folder / "table.csv").write_text("label\n")
    path = folder / "large.yaml"
    path.write_text(
        _PROJECT.format(
            folder=folder,
            attributes=",".join(GROUPS),
            temperatures=",".join(map(str, range(1, arms - 1))),
            seeds=",".join(map(str, range(seeds))),
        )
    )
    return path


class Examples:
    """The test examples, and what models say of them."""

    def __init__(self, rows: int, classes: int) -> None:
        rng = np.random.default_rng(0)
        self.classes = classes
        self.labels = rng.integers(0, classes, rows)
        # The class that an example is most easily mistaken for, one of its label's five.
        self.rival = (self.labels + rng.integers(1, 6, rows)) % classes
        self.ease = rng.normal(2.0, 2.5, rows)
        self.columns = pd.DataFrame(
            {
                name: np.array([f"{name} {i}" for i in range(n)])[rng.integers(0, n, rows)]
                for name, n in GROUPS.items()
            }
        )

    def predictions(self, step: Step, number: int) -> Predictions:
        """Returns the predictions of one model; a teacher is better than its students."""
        rng = np.random.default_rng(number + 1)
        rows = np.arange(len(self.labels))
        logits = rng.standard_normal((len(rows), self.classes), dtype=np.float32)
        better = 0.5 if step.role is Role.TEACHER else 0.0
        margin = self.ease + better + rng.normal(0, 1, len(rows))
        logits[rows, self.labels] = 6.0 + margin
        logits[rows, self.rival] = 6.0
        return Predictions(rows, self.labels, logits.argmax(axis=1), logits, self.columns)


def write_runs(config: ProjectConfig, rows: int, classes: int) -> int:
    """Logs a finished run of every model; returns the bytes of one file of predictions."""
    examples, size = Examples(rows, classes), 0
    names = tuple(f"class {number}" for number in range(classes))
    dataset: Any = SimpleNamespace(name="table", digest=DIGEST)
    digests: dict[str, str] = {}
    with command_run("sweep", config) as parent:
        for number, step in enumerate(study_steps(config, DIGEST, config.temperatures)):
            with model_run(step.title, parent, records.step_tags(config, step)) as run_id:
                records.log_origin(config, step, dataset)
                test = examples.predictions(step, number)
                tags, own = _log_files(test, run_id)
                size = max(size, own)
                digests[step.key] = json.loads(next(iter(tags.values())))[WEIGHTS]
                needs = {name: digests[needed.key] for name, needed in step.needs.items()}
                tags |= {TAG_NEEDS: json.dumps(needs, separators=(",", ":"))} if needs else {}
                table = class_accuracies(test, names).assign(**{TRAINING_EXAMPLES: 1000})
                metrics = {CALIBRATING_TEMPERATURE: 1.2, "training/images_per_second": 1000.0}
                records.log_results(metrics, tags, {"classwise": table}, None)
            print(f"{step.title}: accuracy {test.accuracy:.1%}", flush=True)
    return size


def _log_files(test: Predictions, run_id: str) -> tuple[dict[str, str], int]:
    """Logs predictions and, in place of weights, a few bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "predictions").mkdir()
        path = folder / "predictions" / "test.parquet"
        test.write(path)
        (folder / WEIGHTS).parent.mkdir(exist_ok=True)
        (folder / WEIGHTS).write_bytes(run_id.encode())
        return records.log_verified_artifacts(folder), path.stat().st_size


def report(folder: Path, project: Path, more: list[str]) -> dict[str, float]:
    """Runs the command; returns its seconds, processor seconds and peak memory."""
    words = [sys.executable, "-m", "kdplatform", "report", "--project", str(project)]
    words += ["--out", str(folder / "report"), *more]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, env=os.environ | _environment(folder), cwd=folder)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"report ended with {done.returncode}")
    processor = sum(getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime"))
    files = [path for path in (folder / "report").rglob("*") if path.is_file()]
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_mebibytes": after.ru_maxrss / 1024,
        "page_bytes": float((folder / "report" / "report.html").stat().st_size),
        "report_bytes": float(sum(path.stat().st_size for path in files)),
    }


def _environment(folder: Path) -> dict[str, str]:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return store | {"KDPLATFORM_HOME": str(folder / "home"), "KDPLATFORM_KERNELS": "off"}


def _lines(found: dict[str, float]) -> Iterator[str]:
    mebi = 1 << 20
    yield f"| report, wall seconds | {found['seconds']:.0f} | {SECONDS:.0f} |"
    yield f"| report, processor seconds | {found['processor_seconds']:.0f} | |"
    yield f"| peak memory, MiB | {found['peak_mebibytes']:.0f} | {MEBIBYTES:.0f} |"
    yield f"| predictions of one model, MiB | {found['predictions_bytes'] / mebi:.0f} | |"
    yield f"| page, MiB | {found['page_bytes'] / mebi:.1f} | |"
    yield f"| page, tables and figures, MiB | {found['report_bytes'] / mebi:.1f} | |"


def main() -> int:
    """Prints the table; returns 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="test examples")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--arms", type=int, default=20, help="with the teacher and the NDS")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of the store; an existing one is measured")
    parser.add_argument("--keep", action="store_true", help="do not delete the store")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    arguments, more = parser.parse_known_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="large-report-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(_environment(folder))
    try:
        known = folder / "predictions_bytes"
        project = write_project(folder, arguments.arms, arguments.seeds)
        if not known.exists():
            os.chdir(folder)
            quiet_mlflow()
            prepare_store()
            start = time.perf_counter()
            size = write_runs(load_project(str(project)), arguments.rows, arguments.classes)
            mlflow.flush_async_logging()
            known.write_text(str(size))
            print(f"the store was written in {time.perf_counter() - start:.0f} s", flush=True)
        found = report(folder, project, more) | {"predictions_bytes": float(known.read_text())}
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    shape = f"{arguments.rows:,} examples x {arguments.classes:,} classes"
    print(f"{shape}, {arguments.arms} arms x {arguments.seeds} seeds; {platform.platform()}")
    print("| what | measured | limit |\n|---|---|---|")
    print("\n".join(_lines(found)))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(found["seconds"] > SECONDS or found["peak_mebibytes"] > MEBIBYTES)


if __name__ == "__main__":
    sys.exit(main())
