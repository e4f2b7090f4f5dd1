"""What several rooms' tests need."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

FileLimit = Callable[[int], AbstractContextManager[None]]


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
