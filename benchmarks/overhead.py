"""Measures what a model costs beside its training: a sweep of many small models on a small table.

    python -m benchmarks.overhead --out overhead.json   # 75 models: 5 teachers, 5 NDS, 65 DS
    python -m benchmarks.overhead --models 9            # a quick look

The sweep is the command itself, in processes of its own and with a fresh store. Every figure is
processor time, which other work on the same machine changes little. The parts are measured inside
the workers: the functions of `PARTS` are wrapped there and say what they took, without the parts
that they call. What no part says is the rest: starting the processes, and the sweep's own tables.
"""

import argparse
import atexit
import csv
import ctypes
import importlib
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

TARGET = 0.5
ROWS, FEATURES, CLASSES = 6_000, 12, 4
TEMPERATURES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40)
MOST_SEEDS = 5
IMPORTS = "the command's imports"
FITS = "the fits: training and validation epochs"
# By name: module, and function or method in it.
PARTS = {
    ("kdplatform.training.loop", "_Run.train_epoch"): FITS,
    ("kdplatform.training.loop", "build_optimizer"): "building the optimiser",
    ("kdplatform.training.loop", "save_checkpoint"): "checkpoints",
    ("kdplatform.experiments.workspace", "_loaded_dataset"): "loading the dataset",
    ("kdplatform.experiments.steps", "runs_with_key"): "looking for finished and abandoned runs",
    ("kdplatform.experiments.steps", "supersede_finished"): "superseding older runs",
    ("kdplatform.experiments.steps", "teachers_for"): "the teacher's logits",
    ("kdplatform.experiments.steps", "starting_model"): "building the model",
    ("kdplatform.experiments.steps", "_results"): "statistics of the predictions",
    ("kdplatform.experiments.steps", "_train"): "opening and closing the run",
    ("kdplatform.experiments.logged_models", "log_model"): "exporting and logging the graph",
    ("kdplatform.experiments.records", "log_figures"): "drawing figures",
    ("kdplatform.experiments.records", "EpochLog._flush"): "logging curves",
    ("kdplatform.experiments.records", "log_origin"): "logging where the run comes from",
    ("kdplatform.experiments.records", "log_predictions_and_weights"): "logging predictions",
    ("kdplatform.experiments.records", "log_results"): "logging metrics, tags and tables",
    ("kdplatform.experiments.executors.worker", "run_step"): "other work on a step",
}
# Names the folder in which a process leaves what its parts took.
_FOLDER = "KDPLATFORM_OVERHEAD_FOLDER"
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class _Clock:
    """Adds up the processor seconds of wrapped functions, each without those called inside it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]
        # A forked worker runs no functions of atexit. It runs finalizers, but forgets those that
        # were registered before its task.
        self.at_first_call: Callable[[], Any] = lambda: None

    def wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, timed."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if not self.seconds.keys() - {IMPORTS}:
                self.at_first_call()
            started = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took = time.process_time() - started
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def _measure_parts(folder: Path) -> None:
    """Wraps the parts in this process, which leaves their seconds in `folder` when it ends."""
    clock = _Clock()
    started = time.process_time()
    for (module, name), part in PARTS.items():
        *classes, last = name.split(".")
        owner: Any = importlib.import_module(module)
        for name_of_class in classes:
            owner = getattr(owner, name_of_class)
        setattr(owner, last, clock.wrapped(part, getattr(owner, last)))
    clock.seconds[IMPORTS] = time.process_time() - started

    def leave() -> None:
        path = folder / f"{os.getpid()}.json"
        path.write_text(json.dumps(clock.seconds))

    atexit.register(leave)
    clock.at_first_call = lambda: Finalize(None, leave, exitpriority=0)


def write_table(path: Path) -> None:
    """Writes a table whose classes are told apart by noisy features, with a sensitive column."""
    draw = random.Random(0)
    centres = [[draw.gauss(0, 1) for _ in range(FEATURES)] for _ in range(CLASSES)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{number}" for number in range(FEATURES)), "group", "label"])
        for _ in range(ROWS):
            label, group = draw.randrange(CLASSES), draw.choice("abc")
            noise = 1.5 if group == "a" else 2.5
            features = [f"{draw.gauss(centre, noise):.4f}" for centre in centres[label]]
            writer.writerow([*features, group, f"class {label}"])


def grid(models: int) -> tuple[int, int]:
    """Returns temperatures and seeds of the smallest study of at least this many models.

    A study has (temperatures + 2) models a seed: teacher, NDS and the distilled students.
    """
    seeds = min(MOST_SEEDS, max(1, models // 4))
    return min(len(TEMPERATURES), max(1, -(-models // seeds) - 2)), seeds


def run_sweep(folder: Path, temperatures: int, seeds: int, epochs: int) -> tuple[float, float]:
    """Runs the command on all cores; returns its processor and wall-clock seconds."""
    write_table(folder / "table.csv")
    parameters = {
        "project": "table",
        "data_folder": str(folder / "home"),
        "dataset.file": str(folder / "table.csv"),
        "dataset.attributes": "group",
        "attributes": "group",
        "temperatures": ",".join(map(str, TEMPERATURES[:temperatures])),
        "seeds": ",".join(map(str, range(seeds))),
        "teacher.epochs": str(epochs),
        "student.epochs": str(epochs),
        "teacher.warmup_epochs": "0",
        "student.warmup_epochs": "0",
    }
    words = [word for name, value in parameters.items() for word in (f"--{name}", value)]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        _FOLDER: str(folder / "parts"),
    }
    # Compiled once per machine, and not counted: the loss belongs to the fits.
    subprocess.run([sys.executable, "-m", "kdplatform", "kernels", "build"], check=True)
    (folder / "parts").mkdir()
    # The server that forks the workers outlives the command: this process waits for it instead.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "sweep", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    wall = time.perf_counter() - wall
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def parts_of(folder: Path, total: float) -> dict[str, float]:
    """Returns the seconds by part, the largest first, and last what no part says."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for path in (folder / "parts").glob("*.json"):
        for part, value in json.loads(path.read_text()).items():
            seconds[part] += value
    ordered = dict(sorted(seconds.items(), key=lambda item: -item[1]))
    return {**ordered, "the rest": total - sum(ordered.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=75, help="how many, about")
    parser.add_argument("--epochs", type=int, default=5, help="of every training")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    temperatures, seeds = grid(arguments.models)
    models = (temperatures + 2) * seeds
    with tempfile.TemporaryDirectory() as name:
        total, wall = run_sweep(Path(name), temperatures, seeds, arguments.epochs)
        parts = parts_of(Path(name), total)
    beside = (total - parts[FITS]) / models
    print(f"{f'{models} models, processor seconds':<52} {'in all':>8} {'a model':>8}")
    for part, seconds in parts.items():
        print(f"{part:<52} {seconds:>8.1f} {seconds / models:>8.3f}")
    print(f"{'in all':<52} {total:>8.1f} {total / models:>8.3f}")
    print(f"beside the fits: {beside:.3f} s a model; target: at most {TARGET:g}")
    print(f"{wall:.0f} s of wall-clock time; {os.cpu_count()} cores, {platform.machine()}")
    if arguments.out:
        figures = {
            "models": models,
            "epochs": arguments.epochs,
            "processor_seconds": total,
            "wall_seconds": wall,
            "beside_the_fits_per_model": beside,
            "parts": parts,
            "cores": os.cpu_count(),
        }
        arguments.out.write_text(json.dumps(figures, indent=2))


if _FOLDER in os.environ:
    _measure_parts(Path(os.environ[_FOLDER]))
    if __name__ == "__main__":
        from kdplatform.cli import main as command

        sys.exit(command())
elif __name__ == "__main__":
    main()
