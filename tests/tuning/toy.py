"""A search without training: what a student predicts follows from its point by a formula."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd

from kdplatform.experiments.graph import Step
from kdplatform.experiments.scheduler import Failure, InterruptedGraphError, Trained
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.tuning.command import before_its_fields, identity
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure
from kdplatform.tuning.references import References
from kdplatform.tuning.search import Search
from kdplatform.tuning.space import Point, first_points, parameters
from kdplatform.tuning.storage import heartbeats, open_storage, open_study, sampler_named

# Examples of each of two groups.
GROUP = 200
MEASURE = Measure("accuracy_gap", "color", 2, "toy", 30)


def config(**overrides: str) -> Any:
    """A project whose tuning block is given; the digits stand for any data."""
    given = {"tuning.unfairness": "accuracy_gap", "temperatures": "1,4,10", "tuning.trials": "8"}
    given |= {name.replace("__", "."): value for name, value in overrides.items()}
    return load_project("digits", given)


def predictions(first: int, second: int, groups: int = 2) -> Predictions:
    """A table of two groups with so many errors each."""
    wrong = np.concatenate([np.arange(GROUP) < first, np.arange(GROUP) < second])
    labels = np.tile([0, 1], GROUP)
    columns = pd.DataFrame(
        {
            "id": np.arange(2 * GROUP),
            "label": labels,
            "prediction": np.where(wrong, 1 - labels, labels),
            "color": ["red"] * GROUP + ["blue" if groups == 2 else "red"] * GROUP,
        }
    )
    return Predictions.of(columns)


def kd(temperature: float, alpha: float) -> Point:
    """A point of plain distillation, trained as the project trains."""
    return Point("kd", (("temperature", temperature), ("alpha", alpha)), 3e-3, 20)


def errors(point: Point) -> tuple[int, int]:
    """More alpha is more accurate and less fair; T = 4 is best; a method without them has these."""
    values = {"temperature": 4.0, "alpha": 0.8} | dict(point.fields)
    off = abs(np.log(values["temperature"] / 4)) * 10
    first = 40 + off - 30 * values["alpha"]
    return round(first), round(first + 20 * values["alpha"])


def expected(point: Point) -> tuple[float, float]:
    """Accuracy and accuracy gap of a point."""
    first, second = errors(point)
    return 1 - (first + second) / (2 * GROUP), (second - first) / GROUP


class World:
    """Trains nothing, and knows what it was asked to train.

    Attributes:
        what: what becomes of a point: `diverge`, `fail`, `nan`, `crash`; anything else trains.
        quick: points whose training takes no time; the others' takes `seconds`.
    """

    def __init__(self, project: Any, seconds: float = 0.0) -> None:
        self.config = project
        self.what: Callable[[Point], str] = lambda point: ""
        self.trained: list[Point] = []
        self.quick: list[Point] = []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.read: list[str] = []
        self._seconds = seconds

    def run(self, steps: Sequence[Step], parent_run_id: str, stop: threading.Event) -> Trained:
        """Stands for `Scheduler.run`."""
        point = Point.of(steps[-1].within(self.config))
        with self.lock:
            self.trained.append(point)
        deadline = time.monotonic() + (0.0 if point in self.quick else self._seconds)
        while time.monotonic() < deadline:
            if self.stop.is_set():
                raise InterruptedGraphError
            time.sleep(0.01)
        what = self.what(point)
        if what == "diverge":
            return Trained(steps, {}, [Failure(steps[-1], "the loss became NaN", diverged=True)])
        if what == "fail":
            return Trained(steps, {}, [Failure(steps[-1], "its worker died")])
        if what == "crash":
            raise RuntimeError("a bug")
        table = predictions(*errors(point), groups=1 if what == "nan" else 2)
        models: dict[str, Any] = {
            step.key: self._model(
                step, table if step.role is Role.DISTILLED else predictions(30, 50)
            )
            for step in steps
        }
        return Trained(steps, models)

    def _model(self, step: Step, table: Predictions) -> Any:
        """Stands for a trained model; what is read of it is noted."""

        def read(split: str) -> Predictions:
            self.read.append(split)
            return table

        return SimpleNamespace(step=step, run_id=step.key, predictions=read)


class NoRuns:
    """Stands for the trials' runs in MLflow."""

    @contextmanager
    def open(self, number: int, title: str, point: Mapping[str, object]) -> Iterator[str]:
        yield f"run of trial {number}"


REFERENCES = References(
    {},
    {},
    None,
    teacher=Outcome(0.95, 0.02),
    nds=Outcome(0.90, 0.05),
    baseline=Outcome(*expected(kd(4.0, 0.8))),
)


def open_toy_study(world: World, url: str, name: str = "toy") -> tuple[optuna.Study, bool]:
    tuning = world.config.tuning
    both: Any = ["maximize", "minimize"]
    storage = open_storage(url)
    study = open_study(
        name,
        storage,
        sampler_named(tuning.sampler),
        tuning.sampler_seed,
        both if tuning.mode == "pareto" else ["minimize"],
        identity(world.config, MEASURE, "data"),
        before_its_fields(world.config),
    )
    return study, heartbeats(storage)


def open_search(world: World, url: str, *, queue: bool = True, name: str = "toy") -> Search:
    """Opens a study and a search on it, with the project's temperatures queued."""
    study, beats = open_toy_study(world, url, name)
    if queue and not study.trials:
        for point in first_points(world.config):
            study.enqueue_trial(parameters(point, world.config))
    workspace: Any = SimpleNamespace(
        config=world.config, dataset=SimpleNamespace(digest="data", class_names=("0", "1"))
    )
    scheduler: Any = world
    runs: Any = NoRuns()
    return Search(study, workspace, MEASURE, REFERENCES, scheduler, runs, beats, world.stop)
