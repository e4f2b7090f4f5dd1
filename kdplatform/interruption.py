"""An interruption is noted when it comes, and takes effect where nothing is left half done.

Python itself raises KeyboardInterrupt between any two instructions. In a function that C++ calls
back, that ends the process; in one that the garbage collector calls, the interruption is lost; in
the middle of a transaction, a database stays locked. So a signal is only noted. It takes effect

- at the next `check`, such as between two training steps,
- at the end of a `held` block, or
- after `GRACE_SECONDS` wherever the program is, unless it is in a `held` block, or for a moment in
  the library of a database.

A further signal after that time raises at once.
"""

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# Long beside a statement of a database or a training step, short for a person who waits.
GRACE_SECONDS = 1.0
# What is raised in a function that a weak reference calls is lost.
_CALLED_BACK = ("sqlalchemy.event", "weakref")
# A transaction would stay open. A server that does not answer is not waited for any longer.
_STORE = ("sqlalchemy", "mlflow.store")
_STORE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.02


@dataclass
class _State:
    """What is known of the interruption of this process.

    Attributes:
        asked: when it was asked for (monotonic seconds); None: it was not.
        taken: whether `check` has raised it, so that nothing raises it again while runs are closed.
        held: how many `held` blocks the main thread is in.
    """

    asked: float | None = None
    taken: bool = False
    held: int = 0


_state = _State()


@contextmanager
def noted(signals: Iterable[int]) -> Iterator[None]:
    """Notes these signals while the block runs, and restores their handlers after it.

    One that the process ignores stays ignored, as `nohup` wants it. Signals reach the main thread
    alone, so in any other the block changes nothing.
    """
    if not _in_main_thread():
        yield
        return
    global _state
    outer, _state = _state, _State()
    handlers = {number: signal.getsignal(number) for number in signals}
    handlers = {number: known for number, known in handlers.items() if known != signal.SIG_IGN}
    alarm = signal.signal(signal.SIGALRM, _raise_at_last)
    for number in handlers:
        signal.signal(number, _note)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, known in {**handlers, signal.SIGALRM: alarm}.items():
            # None: the handler is not one of Python's.
            signal.signal(number, signal.SIG_DFL if known is None else known)
        _state = outer


def asked() -> bool:
    """Tells whether a noted signal has come."""
    return _state.asked is not None


def check() -> None:
    """Raises KeyboardInterrupt, once, if a noted signal has come; in other threads does nothing."""
    if _state.asked is not None and not _state.taken and _in_main_thread():
        _state.taken = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Lets an interruption wait for a `check`, or for the end of the block."""
    if not _in_main_thread():
        yield
        return
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    check()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _note(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state.asked is None:
        _state.asked = now
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
    # The end of a terminal, and `mlflow run`, send several signals that mean one interruption.
    elif now - _state.asked > GRACE_SECONDS:
        raise KeyboardInterrupt


def _raise_at_last(number: int, frame: FrameType | None) -> None:
    if _state.asked is None or _state.held or _state.taken:
        return
    waits_for_store = time.monotonic() - _state.asked < _STORE_SECONDS
    left_first = _CALLED_BACK + _STORE if waits_for_store else _CALLED_BACK
    if _is_in(left_first, frame):
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN_SECONDS)
        return
    # Where this one is lost, the next `check` raises again.
    raise KeyboardInterrupt


def _is_in(modules: Sequence[str], frame: FrameType | None) -> bool:
    """Tells whether a frame, or one that called it, is of one of the modules or below it."""
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}."
        if any(module.startswith(f"{name}.") for name in modules):
            return True
        frame = frame.f_back
    return False
