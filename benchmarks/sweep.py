"""Times a sweep of temperatures and seeds against training its students one by one.

    python -m benchmarks.sweep --out sweep.json          # a part of the grid, extrapolated
    python -m benchmarks.sweep --full --out sweep.json   # all 13 x 5 students, as they are

The ordinary way is a student trained alone with the teacher's forward pass in every step, by all
cores; the fastest of several fits of `--epochs` epochs is counted for all of them, without any
logging. The sweep is the command itself, with everything it logs. Without `--full` a sweep over
`--temperatures` and one seed is run and the time of its distilled students, as their runs in the
tracking store say it, is counted for the whole grid; the table says so.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mlflow import MlflowClient

from kdplatform.config import ProjectConfig, load_project
from kdplatform.data import load_dataset
from kdplatform.experiments.executors.local import usable_cores
from kdplatform.objectives import build_objective
from kdplatform.training import TeacherModel, fit, initialised_model, resolve_precision

TEMPERATURES, SEEDS = "1-10,20,30,40", "0-4"
TARGET = 8.0
# Another process on the same cores makes threads wait for each other: the fastest fit counts.
_REPEATS = 5
CPU = torch.device("cpu")


@dataclass
class Cost:
    """Wall-clock and, where they are known, processor seconds of the grid."""

    part: str
    seconds: float
    cpu_seconds: float | None


def ordinary_cost(config: ProjectConfig, folder: Path, epochs: int, students: int) -> Cost:
    """Times one student with the teacher in every step, and counts it for all students."""
    dataset = load_dataset(config.dataset, folder / "datasets")
    teacher = initialised_model(config.teacher.model, dataset, seed=0, role="teacher")

    def train(epochs: int) -> None:
        fit(
            initialised_model(config.student.model, dataset, seed=0, role="distilled"),
            dataset.train,
            build_objective(config.distillation),
            config.student.model_copy(update={"epochs": epochs, "warmup_epochs": 0.0}),
            seed=0,
            role="distilled",
            device=CPU,
            teacher=TeacherModel(teacher, resolve_precision(config.teacher, CPU)),
            validation=dataset.val,
        )

    train(1)  # what is slow only once
    timings = []
    for _ in range(_REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        train(epochs)
        timings.append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds, cpu_seconds = min(timings)
    factor = students * config.student.epochs / epochs
    return Cost(
        f"{students} times one student, teacher in every step",
        factor * seconds,
        factor * cpu_seconds,
    )


def sweep(project: str, folder: Path, temperatures: str, seeds: str) -> tuple[Cost, str]:
    """Runs the command on all cores; returns its cost and its tracking store."""
    uri = f"sqlite:///{folder}/mlflow.db"
    words = ["--project", project, "--temperatures", temperatures, "--seeds", seeds]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "kdplatform", "sweep", *words],
        check=True,
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "KDPLATFORM_HOME": str(folder)},
    )
    seconds = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost("sweep: the whole command", seconds, cpu), uri


def grid_cost(uri: str, students: int, workers: int) -> Cost:
    """Counts the time of the distilled students' runs for all of the grid's."""
    runs = MlflowClient(uri).search_runs(["0"], "tags.`kd.role` = 'distilled'")
    seconds = [(run.info.end_time - run.info.start_time) / 1000 for run in runs]
    mean = sum(seconds) / len(seconds)
    return Cost(
        f"{students} distilled students of the sweep, from {len(runs)}",
        students * mean / min(workers, students),
        None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="trifeature")
    parser.add_argument("--epochs", type=int, default=3, help="timed of the ordinary way")
    parser.add_argument("--temperatures", default="1,4,10,40", help="swept without --full")
    parser.add_argument("--full", action="store_true", help="sweep the whole grid")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    grid = load_project(arguments.project, {"temperatures": TEMPERATURES, "seeds": SEEDS})
    students, cores = len(grid.temperatures) * len(grid.seeds), usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ordinary = ordinary_cost(grid, folder, arguments.epochs, students)
        chosen = (TEMPERATURES, SEEDS) if arguments.full else (arguments.temperatures, "0")
        command, uri = sweep(arguments.project, folder, *chosen)
        costs = [ordinary, grid_cost(uri, students, cores), command]
    print(f"\n{'':<58} {'seconds':>9} {'cpu s':>9} {'times less':>10}")
    for cost in costs[:2] + (costs[2:] if arguments.full else []):
        ratio = ordinary.seconds / cost.seconds
        cpu = "" if cost.cpu_seconds is None else f"{cost.cpu_seconds:.1f}"
        print(f"{cost.part:<58} {cost.seconds:>9.1f} {cpu:>9} {ratio:>10.1f}")
    if not arguments.full:
        print(
            f"the second row is extrapolated from a sweep over T={arguments.temperatures}, seed 0"
        )
    print(f"target: {TARGET:g} times less; {cores} cores, {platform.processor()}")
    if arguments.out:
        figures = {
            "costs": [asdict(cost) for cost in costs],
            "extrapolated": not arguments.full,
            "cores": cores,
            "torch": torch.__version__,
        }
        arguments.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
