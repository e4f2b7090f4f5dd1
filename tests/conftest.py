"""What several rooms' tests need."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Before torch is loaded: what tests compute is small, and their processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from helpers.place import Finished, Place, copied, made_once, made_store

# A suite that a shell started in the background ignores interruptions, and so would its processes.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

FileLimit = Callable[[int], AbstractContextManager[None]]
HERE = Path(__file__).parent
# Rooms and files that take long.
LONG = {"experiments", "kernels", "tuning"}
LONG |= {f"test_{name}.py" for name in ("site", "faults", "installed", "projects_run")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the long files: at the end no process works on one while the others wait."""
    items.sort(key=lambda item: item.path.relative_to(HERE).parts[0] not in LONG)


@pytest.fixture
def largest_file() -> FileLimit:
    """Makes the system refuse to let any file grow beyond a size: what a full disk feels like.

    The write itself fails (EFBIG), wherever in Python or a library it is made; a real full disk
    differs in the error's number alone and needs a file system of its own.
    """

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread, for tests whose work is small or compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def making_of_the_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Place, list[Finished]]:
    """A place whose store two processes began to make at once, and how they ended."""
    return made_once(tmp_path_factory, "empty", made_store)


@pytest.fixture(scope="session")
def empty_place(making_of_the_store: tuple[Place, list[Finished]]) -> Place:
    return making_of_the_store[0]


@pytest.fixture
def new_place(empty_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where nothing was trained, entered."""
    place = copied(empty_place, tmp_path)
    place.enter(monkeypatch)
    return place
