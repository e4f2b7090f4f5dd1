"""Times a sweep of temperatures and seeds against training its students one by one.

    python -m benchmarks.sweep --out sweep.json          # a part of the grid, extrapolated
    python -m benchmarks.sweep --full --out sweep.json   # all 13 x 5 students, as they are

The ordinary way is a student trained alone with the teacher's forward pass in every step, by all
cores, as such scripts are commonly written: a data loader over tensors, float32, the loss from
torch's functions. Beside it the same with everything else this platform does for speed, so that
what is left is the teacher and the division of the cores. The fastest of several fits of `--epochs`
epochs is counted for all students, validation as often as the project asks and no logging. The
sweep is the command itself, with everything it logs. Without `--full` a sweep over
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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from mlflow import MlflowClient
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdplatform.data import Dataset, load_dataset
from kdplatform.machine import usable_cores
from kdplatform.methods import build_method
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig
from kdplatform.training import Teacher, fit, initialised_model, resolve_precision

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


def ordinary_costs(
    config: ProjectConfig, folder: Path, epochs: int, students: int
) -> tuple[Cost, Cost]:
    """Times one student with the teacher in every step, plainly and with this platform's loop."""
    dataset = load_dataset(config.dataset, folder / "datasets")
    teacher = initialised_model(config.teacher.model, dataset, seed=0, role=Role.TEACHER).eval()
    one_look = {"epochs": epochs, "warmup_epochs": 0.0, "validate_every": epochs}

    def plain() -> None:
        student = initialised_model(config.student.model, dataset, seed=0, role=Role.DISTILLED)
        train_plainly(student, teacher, dataset, config, epochs)

    def with_this_platform() -> None:
        fit(
            initialised_model(config.student.model, dataset, seed=0, role=Role.DISTILLED),
            dataset.train,
            build_method(config.distillation),
            config.student.model_copy(update=one_look),
            seed=0,
            role=Role.DISTILLED,
            device=CPU,
            teacher=Teacher(None, lambda: teacher, resolve_precision(config.teacher, CPU)),
            validation=dataset.val,
        )

    factor = students * config.student.epochs / epochs
    return (
        _cost(f"{students} times one student, plain PyTorch in float32", plain, factor),
        _cost(f"{students} times one student, this platform's loop", with_this_platform, factor),
    )


def _cost(part: str, train: Callable[[], None], factor: float) -> Cost:
    train()  # what is slow only once
    timings = []
    for _ in range(_REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        train()
        timings.append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds, cpu_seconds = min(timings)
    return Cost(part, factor * seconds, factor * cpu_seconds)


def train_plainly(
    student: nn.Module, teacher: nn.Module, dataset: Dataset, config: ProjectConfig, epochs: int
) -> None:
    """Distils as a script does that knows nothing of this platform, and validates at the end."""
    chosen, temperature = config.distillation, config.distillation.softmax_temperature
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.student.learning_rate)
    train, val = (
        DataLoader(TensorDataset(*tensors), batch_size, shuffle=shuffle)
        for tensors, batch_size, shuffle in (
            ((dataset.train.inputs, dataset.train.labels), config.student.batch_size, True),
            ((dataset.val.inputs, dataset.val.labels), 256, False),
        )
    )
    student.train()
    for _ in range(epochs):
        for images, labels in train:
            with torch.no_grad():
                teacher_logits = teacher(images)
            logits = student(images)
            kl = F.kl_div(
                F.log_softmax(logits / temperature, dim=1),
                F.softmax(teacher_logits / temperature, dim=1),
                reduction="batchmean",
            )
            ce = F.cross_entropy(logits, labels)
            loss = chosen.alpha * temperature**2 * kl + (1 - chosen.alpha) * ce
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    student.eval()
    with torch.no_grad():
        for images, _ in val:
            student(images).argmax(dim=1)


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
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`kd.role` = 'distilled'")
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
    parser.add_argument(
        "--epochs", type=int, help="timed of the ordinary way; all that lie between two validations"
    )
    parser.add_argument("--temperatures", default="1,4,10,40", help="swept without --full")
    parser.add_argument("--full", action="store_true", help="sweep the whole grid")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    grid = load_project(arguments.project, {"temperatures": TEMPERATURES, "seeds": SEEDS})
    students, cores = len(grid.temperatures) * len(grid.seeds), usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epochs = arguments.epochs or grid.student.validate_every
        plain, own_loop = ordinary_costs(grid, folder, epochs, students)
        chosen = (TEMPERATURES, SEEDS) if arguments.full else (arguments.temperatures, "0")
        command, uri = sweep(arguments.project, folder, *chosen)
        costs = [plain, own_loop, grid_cost(uri, students, cores), command]
    print(f"\n{'':<58} {'seconds':>9} {'cpu s':>9} {'times less':>10}")
    for cost in costs[:3] + (costs[3:] if arguments.full else []):
        ratio = plain.seconds / cost.seconds
        cpu = "" if cost.cpu_seconds is None else f"{cost.cpu_seconds:.1f}"
        print(f"{cost.part:<58} {cost.seconds:>9.1f} {cpu:>9} {ratio:>10.1f}")
    if not arguments.full:
        print(f"the third row is extrapolated from a sweep over T={arguments.temperatures}, seed 0")
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
