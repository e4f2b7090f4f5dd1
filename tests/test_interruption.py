"""A signal is noted when it comes, and takes effect where nothing is left half done."""

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from kdplatform import cli, interruption
from kdplatform.errors import MachineError
from kdplatform.interruption import asked, check, held, noted

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE_SECONDS", 0.05)


@pytest.fixture
def watched() -> Iterator[None]:
    with noted(ALL):
        yield


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("number", ALL)
def test_a_signal_takes_effect_at_the_next_check(number: int) -> None:
    check()
    send(number)
    assert asked()
    with pytest.raises(KeyboardInterrupt):
        check()
    # Not once more while runs are closed.
    check()
    time.sleep(0.1)


@pytest.mark.usefixtures("watched")
def test_without_a_check_it_takes_effect_after_the_grace() -> None:
    began = time.monotonic()
    send()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert 0.03 <= time.monotonic() - began < 5


@pytest.mark.usefixtures("watched")
def test_a_held_block_is_finished_first() -> None:
    done = []

    def work() -> None:
        with held():
            send()
            time.sleep(0.1)
            done.append("in it")
        done.append("after it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["in it"]


@pytest.mark.usefixtures("watched")
def test_a_held_block_has_checks_of_its_own() -> None:
    steps = []

    def work() -> None:
        with held():
            for step in range(3):
                check()
                steps.append(step)
                send()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [0]


@pytest.mark.usefixtures("watched")
def test_a_further_signal_raises_at_once_but_not_within_the_grace() -> None:
    passed = []

    def work() -> None:
        with held():
            for _ in range(2):
                send()
            passed.append("two within it")
            time.sleep(0.1)
            send()
            passed.append("one after it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == ["two within it"]


@pytest.mark.usefixtures("watched")
def test_an_interruption_that_a_callback_loses_is_raised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_type))

    class Thing:
        pass

    def collected(_: object) -> None:
        time.sleep(10)

    thing = Thing()
    watch = weakref.ref(thing, collected)
    send()
    del thing  # calls back
    assert watch() is None
    assert lost == [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        check()


@pytest.mark.usefixtures("watched")
def test_a_databases_library_is_left_first() -> None:
    done = []
    library = {"__name__": "sqlalchemy.orm.session", "time": time, "send": send, "done": done}
    exec("def commit():\n send()\n time.sleep(0.2)\n done.append(True)", library)
    library["commit"]()
    assert done
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


@pytest.mark.usefixtures("watched")
def test_other_threads_are_not_interrupted() -> None:
    went_on = []

    def work() -> None:
        with held():
            check()
        went_on.append(True)

    send()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert went_on
    with pytest.raises(KeyboardInterrupt):
        check()


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (*ALL, signal.SIGALRM)]
    with noted(ALL):
        pass
    assert [signal.getsignal(number) for number in (*ALL, signal.SIGALRM)] == before
    assert not asked()


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted(ALL):
            send(signal.SIGHUP)
            check()
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_librarys_error_after_an_interruption_is_the_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> None:
        with held():
            send()
            raise MachineError("database is locked")

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["distill"]) == cli.INTERRUPTED
    said = capsys.readouterr().err
    assert said == "kdplatform: interrupted; the same command goes on from the last epoch\n"
