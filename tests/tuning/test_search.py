"""The search keeps its books, whatever becomes of its trials."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import toy
from optuna.trial import TrialState

from kdplatform.processes import this_process
from kdplatform.tuning import storage
from kdplatform.tuning import trials as books
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.references import floors
from kdplatform.tuning.space import first_points

pytestmark = pytest.mark.usefixtures("stubbed")


def counted(search: Any) -> books.Books:
    return books.keep_books(search.study.get_trials())


def test_a_search_tries_the_projects_temperatures_first_and_then_others(url: str) -> None:
    world = toy.World(toy.config())
    search = toy.open_search(world, url)
    search.run(1)
    found = books.all_evaluated(search.study)
    assert [trial.point for trial in found[:3]] == first_points(world.config)
    assert len(found) == len({trial.point for trial in found}) == 8
    assert world.trained == [trial.point for trial in found]


def test_values_are_those_of_the_validation_predictions(url: str) -> None:
    world = toy.World(toy.config(tuning__trials="5"))
    search = toy.open_search(world, url)
    search.run(1)
    for trial in books.all_evaluated(search.study):
        assert trial.outcome == pytest.approx(toy.expected(trial.point))
        values = search.study.trials[trial.number].values
        assert values == pytest.approx(list(trial.outcome))


def test_one_worker_and_one_seed_give_the_same_search_again(tmp_path: Path) -> None:
    points = []
    for name in ("a", "b"):
        world = toy.World(toy.config(tuning__trials="7"))
        toy.open_search(world, f"sqlite:///{tmp_path}/{name}.db").run(1)
        points.append(world.trained)
    assert points[0] == points[1]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsgaii", "random"])
@pytest.mark.parametrize("mode", ["pareto", "constrained"])
def test_every_sampler_does_both_modes(sampler: str, mode: str, tmp_path: Path) -> None:
    project = toy.config(tuning__sampler=sampler, tuning__mode=mode, tuning__trials="13")
    search = toy.open_search(toy.World(project), f"journal:///{tmp_path}/log")
    search.run(1)
    assert counted(search).completed == 13


def test_a_study_goes_on_where_it_was(url: str) -> None:
    first = toy.World(toy.config(tuning__trials="4"))
    toy.open_search(first, url).run(1)
    second = toy.World(toy.config(tuning__trials="6"))
    search = toy.open_search(second, url)
    search.run(1)
    assert (len(first.trained), len(second.trained)) == (4, 2)
    assert not {*first.trained} & {*second.trained}
    assert counted(search).completed == 6


def test_a_point_that_was_tried_is_not_trained_again(url: str) -> None:
    world = toy.World(toy.config(tuning__trials="5"))
    search = toy.open_search(world, url)
    search.study.enqueue_trial({"temperature": 4.0004, "alpha": 0.8003})
    search.run(1)
    [again] = [t for t in books.all_evaluated(search.study) if t.same_as is not None]
    assert again.point == first_points(world.config)[0]
    assert again.outcome == pytest.approx(toy.expected(again.point))
    assert len(world.trained) == 4


def test_a_training_that_diverges_is_an_infeasible_point_and_no_crash(url: str) -> None:
    world = toy.World(toy.config(tuning__trials="5"))
    world.what = lambda point: "diverge" if dict(point.fields)["temperature"] == 10 else ""
    search = toy.open_search(world, url)
    search.run(1)
    [lost] = [trial for trial in books.all_evaluated(search.study) if trial.diverged]
    assert (dict(lost.point.fields)["temperature"], lost.feasible, lost.constraints) == (
        10,
        False,
        {"diverged": 1.0, "collapsed": 0.0},
    )
    assert lost.number not in {trial.number for trial in search.study.best_trials}
    assert counted(search).completed == 5


@pytest.mark.parametrize(
    ("what", "reason"),
    [("fail", "its worker died"), ("nan", "is undefined on validation data (")],
)
def test_a_trial_without_a_value_fails_with_its_reason_and_the_study_goes_on(
    what: str, reason: str, url: str
) -> None:
    world = toy.World(toy.config(tuning__trials="5"))
    world.what = lambda point: what if dict(point.fields)["temperature"] == 1 else ""
    search = toy.open_search(world, url)
    search.run(1)
    [(number, said)] = books.failures(search.study.get_trials())
    assert (number, reason in said) == (1, True)
    assert counted(search) == books.Books(4, 1, 0, 0, 0, 0)


def test_a_bug_is_not_swallowed(url: str) -> None:
    world = toy.World(toy.config())
    world.what = lambda point: "crash"
    with pytest.raises(RuntimeError, match="a bug"):
        toy.open_search(world, url).run(1)


def test_in_mode_constrained_the_floor_is_a_share_of_the_baselines_accuracy(url: str) -> None:
    project = toy.config(tuning__mode="constrained", tuning__keep="0.99")
    search = toy.open_search(toy.World(project), url)
    search.run(1)
    floor = 0.99 * toy.REFERENCES.baseline.accuracy
    for trial in books.all_evaluated(search.study):
        assert trial.constraints["accuracy"] == pytest.approx(floor - trial.outcome.accuracy)
        assert trial.feasible == (trial.outcome.accuracy >= floor)
    feasible = [t for t in books.all_evaluated(search.study) if t.feasible]
    assert 0 < len(feasible) < 8
    best = min(trial.outcome.unfairness for trial in feasible)
    assert search.study.best_value == pytest.approx(best)


def test_constraints_hold_the_larger_accuracy_and_the_worst_group(url: str) -> None:
    project = toy.config(tuning__accuracy_margin="0.01", tuning__worst_group_floor="0.88")
    assert floors(project, toy.REFERENCES) == {
        "accuracy": pytest.approx(0.89),
        "worst_group_accuracy": 0.88,
    }
    search = toy.open_search(toy.World(project), url)
    search.run(1)
    for trial in books.all_evaluated(search.study):
        assert trial.constraints["worst_group_accuracy"] == pytest.approx(
            0.88 - trial.worst_group_accuracy
        )


def test_threads_train_no_point_twice_and_end_at_the_budget(url: str) -> None:
    world = toy.World(
        toy.config(tuning__trials="16", tuning__temperature="4,4.02", tuning__alpha="0.8,0.82"),
        seconds=0.03,
    )
    search = toy.open_search(world, url)
    search.run(4)
    assert max(Counter(world.trained).values()) == 1
    assert len(world.trained) < 16
    assert (counted(search).completed, counted(search).begun) == (16, 16)


def interrupt_when(condition: Any) -> None:
    """Sends this process Ctrl-C when something has come true."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@pytest.fixture
def _ctrl_c_works() -> Iterator[None]:
    """A shell lets processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_works")
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_puts_the_trials_under_way_back_into_the_queue(threads: int, url: str) -> None:
    world = toy.World(toy.config(), seconds=30.0)
    world.quick = first_points(world.config)
    search = toy.open_search(world, url)
    interrupt_when(lambda: len(world.trained) == 3 + threads)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        search.run(threads)
    assert time.monotonic() - started < 10
    interrupted = counted(search)
    assert (interrupted.completed, interrupted.retried, interrupted.waiting) == (
        3,
        threads,
        threads,
    )
    assert interrupted.running == 0
    again = toy.World(toy.config())
    resumed = toy.open_search(again, url)
    resumed.run(1)
    assert (counted(resumed).completed, counted(resumed).failed) == (8, 0)
    assert {*world.trained} - {*world.quick} <= {*again.trained}


DRIVERS = """
import sys, threading
sys.path.insert(0, {tests!r})
import toy
from kdplatform.tuning import search, storage
search.log_result = lambda *arguments: None
storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, 2
def drive(url):
    world = toy.World(toy.config(tuning__trials="5"))
    def wait(point):
        if dict(point.fields)["temperature"] == 1:
            print("under way", flush=True)
            world.stop.wait(100)
        return ""
    world.what = wait
    toy.open_search(world, url).run(1)
for url in {urls!r}:
    threading.Thread(target=drive, args=(url,), daemon=True).start()
threading.Event().wait(100)
"""


def kill_drivers(*urls: str) -> None:
    """Leaves studies whose drivers were killed in their second trial."""
    code = DRIVERS.format(tests=str(Path(__file__).parent), urls=urls)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in urls:
        assert process.stdout.readline() == "under way\n"
    process.kill()
    process.wait()


def test_the_trial_of_a_killed_driver_is_marked_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 2)
    monkeypatch.setattr(books, "_SETTLED", books.timedelta(0))
    journal, database = f"journal:///{tmp_path}/log", f"sqlite:///{tmp_path}/optuna.db"
    silent = f"sqlite:///{tmp_path}/silent.db"
    kill_drivers(journal, database, silent)
    # As when the driver is killed before its trial's first heartbeat.
    with closing(sqlite3.connect(tmp_path / "silent.db")) as connection, connection:
        connection.execute("DELETE FROM trial_heartbeats")
    for url in (journal, database, silent):
        world = toy.World(toy.config(tuning__trials="5"))
        search = toy.open_search(world, url)
        if url == journal:
            # Nothing beats in a journal: the driver's process is looked for.
            assert [trial.number for trial in books.recover(search.study)] == [1]
        elif url == database:
            time.sleep(2.5)
        search.run(1)
        assert counted(search) == books.Books(5, 0, 1, 0, 0, 0)
        lost = search.study.trials[1]
        assert lost.state is TrialState.FAIL
        [retried] = [t for t in search.study.trials if t.system_attrs.get("retry_history") == [1]]
        assert retried.params == lost.params
        assert toy.kd(1.0, 0.8) in world.trained


@pytest.mark.parametrize(("age", "lost"), [(60, 0), (91, 1)])
def test_a_trial_that_its_driver_never_signed_is_lost_after_the_grace(
    url: str, age: int, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = toy.open_toy_study(toy.World(toy.config()), url)
    trial = study.ask()
    later = datetime.now() + timedelta(seconds=age)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return later

    monkeypatch.setattr(books, "datetime", Later)
    assert [found.number for found in books.recover(study)] == [trial.number] * lost


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_living_driver_keeps_its_trial(url: str) -> None:
    study, _ = toy.open_toy_study(toy.World(toy.config()), url)
    trial = study.ask()
    trial.set_user_attr(books.DRIVER, this_process())
    assert books.recover(study) == []
    assert study.trials[0].state is TrialState.RUNNING


def share(url: str, drivers: int = 2) -> tuple[list[Any], list[toy.World]]:
    """Runs several drivers of one study at once."""
    narrow = {"tuning__temperature": "4,4.03", "tuning__alpha": "0.8,0.82"}
    worlds = [
        toy.World(toy.config(tuning__trials="14", temperatures="4", **narrow), seconds=0.02)
        for _ in range(drivers)
    ]
    searches = [toy.open_search(world, url, queue=False) for world in worlds]
    # One for all: each world knows only what it trained itself.
    tables: dict[str, Any] = {}
    for world in worlds:
        world._tables = tables
    threads = [threading.Thread(target=search.run, args=(2,)) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return searches, worlds


def check_shared(searches: list[Any], worlds: list[toy.World]) -> None:
    trained = [point for world in worlds for point in world.trained]
    assert max(Counter(trained).values()) == 1
    assert all(world.trained for world in worlds)
    end = counted(searches[0])
    assert (end.completed, end.failed, end.running, end.waiting) == (14, 0, 0, 0)
    found = books.all_evaluated(searches[0].study)
    assert sum(trial.same_as is None for trial in found) == len(trained) < 14
    assert all(trial.outcome == pytest.approx(toy.expected(trial.point)) for trial in found)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_drivers_share_a_study_and_train_no_point_twice(kind: str, tmp_path: Path) -> None:
    check_shared(*share(f"{kind}:///{tmp_path}/study"))


def test_two_drivers_share_a_postgresql_study(postgres: str) -> None:
    check_shared(*share(postgres))


def test_infeasible_values_are_the_reference_point(url: str) -> None:
    world = toy.World(toy.config(tuning__trials="1"))
    world.what = lambda point: "diverge"
    search = toy.open_search(world, url)
    search.run(1)
    assert search.study.trials[0].values == list(Outcome(pytest.approx(0.8), pytest.approx(0.1)))
