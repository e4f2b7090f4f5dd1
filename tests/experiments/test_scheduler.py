"""The scheduler: every step once, after what it needs, whatever fails on the way."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdplatform.experiments import scheduler
from kdplatform.experiments.executors import Assignment, Outcome
from kdplatform.experiments.graph import Step
from kdplatform.experiments.scheduler import InterruptedGraphError, Scheduler, Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.roles import Role
from kdplatform.settings.project import load_project

CONFIG = load_project("digits")


def step(role: Role, seed: int, **needs: Step) -> Step:
    training = CONFIG.teacher if role is Role.TEACHER else CONFIG.student
    distillation = CONFIG.distillation if role is Role.DISTILLED else None
    return Step(role, seed, training, f"{role} {seed}", distillation, needs)


# Two teachers and a model to start from, under names of its own; and a student of that student.
FIRST, SECOND = step(Role.TEACHER, 0), step(Role.TEACHER, 1)
START = step(Role.STUDENT, 0)
ENSEMBLE = step(Role.DISTILLED, 0, teacher=FIRST, other_teacher=SECOND, start=START)
GRANDCHILD = step(Role.DISTILLED, 1, teacher=ENSEMBLE)
APART = step(Role.STUDENT, 1)
GRAPH = (GRANDCHILD, ENSEMBLE, APART, START, SECOND, FIRST)

Behaviour = Callable[[Assignment], Outcome]


def trained(assignment: Assignment) -> Outcome:
    return Outcome(f"run of {assignment.step.key}")


class Executor:
    """Carries out every step at once, or in threads; knows what it was handed."""

    slots = 3

    def __init__(self, behaviour: Behaviour = trained, pool: ThreadPoolExecutor | None = None):
        self.handed: list[Assignment] = []
        self._behaviour = behaviour
        self._pool = pool

    @property
    def keys(self) -> list[str]:
        return [assignment.step.key for assignment in self.handed]

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        self.handed.append(assignment)
        if self._pool is not None:
            return self._pool.submit(self._behaviour, assignment)
        future: Future[Outcome] = Future()
        try:
            future.set_result(self._behaviour(assignment))
        except Exception as error:
            future.set_exception(error)
        return future

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scheduler]:
    """Returns schedulers of this project that need no store."""
    workspace = Workspace(CONFIG, tmp_path, torch.device("cpu"), reuse=True)
    return lambda executor, known=None: Scheduler(workspace, "cpu", executor, known)


def failing(*keys: str, **how: Any) -> Behaviour:
    """Returns how steps behave of which those of some keys fail."""

    def behave(assignment: Assignment) -> Outcome:
        if assignment.step.key in keys:
            return replace(Outcome(None, error="it would not learn"), **how)
        return trained(assignment)

    return behave


def reasons(result: Trained) -> dict[str, str]:
    return {failure.step.key: failure.reason for failure in result.failures}


def keys_of(steps: Iterable[Step]) -> set[str]:
    return {step.key for step in steps}


def test_every_step_is_run_once_after_what_it_needs(schedule: Any) -> None:
    executor = Executor()
    result = schedule(executor).run(GRAPH, "parent")
    order = executor.keys
    assert sorted(order) == sorted(keys_of(GRAPH))
    for each in GRAPH:
        assert all(order.index(n.key) < order.index(each.key) for n in each.needs.values())
    assert {key: model.run_id for key, model in result.models.items()} == {
        key: f"run of {key}" for key in keys_of(GRAPH)
    }
    assert result.failures == []


def test_a_step_is_handed_the_runs_of_what_it_needs_by_the_names_it_gives_them(
    schedule: Any,
) -> None:
    executor = Executor()
    schedule(executor).run(GRAPH, "parent")
    handed = {assignment.step.key: assignment for assignment in executor.handed}
    assert handed[ENSEMBLE.key].runs == {
        "teacher": "run of teacher 0",
        "other_teacher": "run of teacher 1",
        "start": "run of student 0",
    }
    assert handed[FIRST.key].runs == {}
    assert handed[FIRST.key].parent_run_id == "parent"


def test_steps_that_need_nothing_of_each_other_run_at_the_same_time(
    schedule: Any, pool: ThreadPoolExecutor
) -> None:
    together = threading.Barrier(4, timeout=30)  # both teachers, the start and the one apart

    def meet(assignment: Assignment) -> Outcome:
        if not assignment.step.needs:
            together.wait()
        return trained(assignment)

    result = schedule(Executor(meet, pool)).run(GRAPH, "parent")
    assert result.models.keys() == keys_of(GRAPH)


def test_what_is_known_is_not_handed_out(schedule: Any) -> None:
    known = {step.key: TrainedModel(step, "old", reused=True) for step in (FIRST, SECOND)}
    executor = Executor()
    result = schedule(executor, known).run(GRAPH, "parent")
    assert set(executor.keys) == keys_of([START, APART, ENSEMBLE, GRANDCHILD])
    [ensemble] = [a for a in executor.handed if a.step is ENSEMBLE]
    assert ensemble.runs["other_teacher"] == "old"
    assert [model.reused for model in result.of_role(Role.TEACHER)] == [True, True]


def test_models_of_a_role_stand_in_the_order_of_the_steps(schedule: Any) -> None:
    result = schedule(Executor()).run(GRAPH, "parent")
    assert [model.step for model in result.of_role(Role.TEACHER)] == [SECOND, FIRST]


def test_a_failure_fails_what_depends_on_it_and_nothing_else(schedule: Any) -> None:
    executor = Executor(failing(SECOND.key, trace="where", diverged=True))
    result = schedule(executor).run(GRAPH, "parent")
    assert reasons(result) == {
        SECOND.key: "it would not learn",
        ENSEMBLE.key: f"not tried: it needs {SECOND.title}, which failed",
        GRANDCHILD.key: f"not tried: it needs {ENSEMBLE.title}, which failed",
    }
    assert result.models.keys() == keys_of([FIRST, START, APART])
    told = {failure.step.key: (failure.trace, failure.diverged) for failure in result.failures}
    assert told[SECOND.key] == ("where", True)
    assert told[ENSEMBLE.key] == ("", False)


def test_a_failure_while_others_run_waits_for_none_of_them(
    schedule: Any, pool: ThreadPoolExecutor
) -> None:
    """What needs the failed step is given up at once; what runs is finished all the same."""
    go = threading.Event()

    def behave(assignment: Assignment) -> Outcome:
        if assignment.step is SECOND:
            raise RuntimeError("its worker died\nof cold")
        if assignment.step is APART:
            assert go.wait(30)
        return trained(assignment)

    progress = Progress(lambda failed: failed is GRANDCHILD and go.set())
    result = schedule(Executor(behave, pool)).run(GRAPH, "parent", progress)
    assert go.is_set()
    assert reasons(result)[SECOND.key] == "its worker died of cold"
    assert APART.key in result.models


class Progress:
    """Tells who failed."""

    def __init__(self, told: Callable[[Step], object]) -> None:
        self._told = told

    def show(self, *, in_flight: int) -> None:
        pass

    def done(self, *step: object, reused: bool) -> None:
        pass

    def failed(self, step: Step, messages: object) -> None:
        self._told(step)


def test_steps_not_wanted_any_more_are_not_waited_for(
    schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_LOOK_EVERY_SECONDS", 0.01)
    stop = threading.Event()

    class Endless(Executor):
        def submit(self, assignment: Assignment) -> "Future[Outcome]":
            self.handed.append(assignment)
            stop.set()
            return Future()

    executor = Endless()
    with pytest.raises(InterruptedGraphError):
        schedule(executor).run(GRAPH, "parent", stop=stop)
    assert set(executor.keys) == keys_of([FIRST, SECOND, START, APART])


def test_several_threads_share_one_scheduler(schedule: Any, pool: ThreadPoolExecutor) -> None:
    """Each has its own steps, and all use the models that one of them had trained before."""
    students = [step(Role.DISTILLED, seed, teacher=FIRST, start=START) for seed in range(6)]
    together = threading.Barrier(len(students), timeout=30)

    def meet(assignment: Assignment) -> Outcome:
        if assignment.step.needs:
            together.wait()
        return trained(assignment)

    with ThreadPoolExecutor(len(students)) as workers:
        executor = Executor(meet, workers)
        shared = schedule(executor)
        shared.run([FIRST, START], "parent")
        results = list(pool.map(lambda each: shared.run([FIRST, START, each], "parent"), students))
    assert sorted(executor.keys) == sorted(keys_of([FIRST, START, *students]))
    for each, result in zip(students, results, strict=True):
        assert result.models.keys() == keys_of([FIRST, START, each])
    assert shared.known.keys() == keys_of([FIRST, START, *students])


def test_a_graph_that_lacks_a_needed_step_is_refused(schedule: Callable[..., Scheduler]) -> None:
    executor = Executor()
    with pytest.raises(ValueError, match="needs a step that is not among those given"):
        schedule(executor).run([ENSEMBLE, FIRST, SECOND], "parent")
    assert executor.handed == []
