"""The progress of a graph: a bar on a terminal, one line per model elsewhere."""

import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Self

from tqdm import tqdm

from kdplatform.experiments.graph import Step
from kdplatform.progress import say
from kdplatform.roles import Role


class GraphProgress:
    """Counts models and shows done, running, reused, failed and the time left.

    Args:
        steps: the steps whose models are not trained yet.
        reused: models that need no training.
        slots: how many models are trained at the same time.
        title: what the models are trained for.
    """

    def __init__(self, steps: Sequence[Step], *, reused: int, slots: int, title: str) -> None:
        self._title = title
        self._total = len(steps) + reused
        self._left = Counter(step.role for step in steps)
        self._slots = slots
        self._in_flight = 0
        self._trained = 0
        self._reused = reused
        self._failed = 0
        self._seconds: defaultdict[Role, list[float]] = defaultdict(list)
        self._last_end = time.monotonic()
        self._bar: tqdm[Any] = tqdm(
            total=self._total,
            initial=reused,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {postfix}",
            disable=None,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def __enter__(self) -> Self:
        """Prints the number of models."""
        say(
            f"{self._title}: {self._total} models, {self._reused} of them reused; "
            f"up to {self._slots} at a time"
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the bar."""
        self._bar.close()

    def show(self, *, in_flight: int) -> None:
        """Updates the bar; `in_flight` is the number of submitted, unfinished steps."""
        self._in_flight = in_flight
        self._bar.set_postfix_str(self.status())

    def done(self, step: Step, messages: Sequence[str], seconds: float, *, reused: bool) -> None:
        """Counts a model that is trained, or that another process trained in the meantime."""
        if reused:
            self._reused += 1
        else:
            self._trained += 1
            self._seconds[step.role].append(seconds)
        self._ended(step, messages)

    def failed(self, step: Step, messages: Sequence[str]) -> None:
        """Counts a model that failed."""
        self._failed += 1
        self._ended(step, messages)

    def _ended(self, step: Step, messages: Sequence[str]) -> None:
        self._left[step.role] -= 1
        self._in_flight = max(0, self._in_flight - 1)
        self._last_end = time.monotonic()
        self._bar.update()
        if not self._bar.disable:
            for message in messages:
                say(message)
            return
        *earlier, last = messages or [step.title]
        for message in earlier:
            say(message)
        ended = self._total - self._left.total()
        say(f"[{ended}/{self._total}] {last} ({self.status()})")

    def status(self) -> str:
        """Returns the counts and the time left in words."""
        running = min(self._in_flight, self._slots)
        counts = (
            f"done {self._trained}, running {running}, reused {self._reused}, failed {self._failed}"
        )
        seconds = self.seconds_left()
        return counts if seconds is None else f"{counts}, {_duration(seconds)} left"

    def seconds_left(self) -> float | None:
        """Estimates the time left from the models of the same role trained so far.

        None before the first model is trained.
        """
        known = [second for seconds in self._seconds.values() for second in seconds]
        if not known:
            return None
        work = 0.0
        for role, count in self._left.items():
            seconds = self._seconds[role] or known
            work += count * sum(seconds) / len(seconds)
        slots = max(1, min(self._slots, self._left.total()))
        return max(0.0, work / slots - (time.monotonic() - self._last_end))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"about {math.ceil(seconds)} s"
    if seconds < 3600:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
