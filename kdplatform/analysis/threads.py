"""Parallel work on parts of the draws, since NumPy and SciPy release Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from kdplatform.machine import usable_cores

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Part], Result], parts: Iterable[Part], number: int
) -> Iterator[Result]:
    """Yields the results of the parts in order; a single part uses no thread.

    At most one part more than there are cores is waiting, so parts may be created lazily.

    Args:
        number: number of parts.
    """
    threads = min(number, usable_cores())
    if threads < 2:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(pool.submit(work, part))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
