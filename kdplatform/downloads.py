"""Downloads: retried, checked against the published checksum, complete or absent."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kdplatform.errors import MachineError, UserError, one_line
from kdplatform.files import file_digest, written_atomically
from kdplatform.progress import progress_bar, say
from kdplatform.registry import optional_module

Result = TypeVar("Result")

ATTEMPTS = 3
TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 2.0
_CHUNK = 1 << 20
# The alternative for the user to a dataset's download.
GIVEN_ROOT = " or another folder that is given as dataset.root"


class _OtherFileError(Exception):
    """The server did not send the published file."""


# Faults of the network or the server. A full disk is not one of them.
_SILENCES = (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError)
_FAILURES = (*_SILENCES, _OtherFileError)


@dataclass(frozen=True)
class Checksum:
    """A kind of checksum that publishers give for a file's content."""

    name: str
    of: Callable[[Path], str]


def md5_of(path: Path) -> str:
    """Returns the MD5 of a file. Publishers give it, against accidents and not attackers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def git_id_of(path: Path) -> str:
    """Returns git's id of a file's content: the SHA-1 of its length and content."""
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


MD5 = Checksum("md5", md5_of)
GIT_ID = Checksum("git id", git_id_of)
SHA256 = Checksum("sha256", file_digest)


def check_published(path: Path, md5: str, url: str) -> None:
    """Checks a file against its publisher's MD5, before anything reads it.

    Raises:
        UserError: it is missing or differs; names it, the expected MD5, and its source.
    """
    if not path.is_file():
        raise UserError(f"{str(path)!r} is missing; allowed: all files of {url}")
    if (found := md5_of(path)) != md5:
        raise UserError(
            f"{str(path)!r} is not the published file (md5 {found}, expected {md5}): cut short or "
            f"altered; allowed: the file of {url}"
        )


def download(
    url: str, target: Path, expected: str, checksum: Checksum = MD5, *, elsewhere: str = GIVEN_ROOT
) -> None:
    """Fetches a file. Afterwards it is the complete published file, or absent.

    Args:
        expected: the published file's checksum, or its beginning.
        elsewhere: where a user may put the file besides `target`, for the message.

    Raises:
        MachineError: as `attempted`; names the file, and where the user may put it.
    """

    def fetch() -> None:
        with written_atomically(target) as temporary:
            _transfer(url, temporary)
            if not (found := checksum.of(temporary)).startswith(expected):
                raise _OtherFileError(f"sent another file ({checksum.name} {found})")

    file = f"{target.name} ({checksum.name} {expected})"
    attempted(url, fetch, f"{file} put into {str(target.parent)!r}{elsewhere}")


def _transfer(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "kdplatform"})
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer,
        target.open("wb") as file,
        progress_bar(int(answer.headers.get("Content-Length", 0)), target.name, "B") as bar,
    ):
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def hub_file(repository: str, name: str, *, needed_by: str, extra: str) -> Path:
    """Returns a file of a repository, from the Hugging Face hub's cache or downloaded into it.

    Args:
        needed_by: the parameter that asks for it, with its value.
        extra: of this package, which installs the hub's client.

    Raises:
        UserError: the client is not installed.
        MachineError: the file is not in the cache and cannot be downloaded.
    """
    hub = optional_module("huggingface_hub", needed_by=needed_by, extra=extra)
    try:
        cached = hub.try_to_load_from_cache(repository, name)
    except ValueError as error:
        raise UserError(f"{needed_by} names no repository of the hub ({one_line(error)})") from None
    if isinstance(cached, str):
        return Path(cached)
    # The client retries by itself, and prints a traceback each time.
    hub.utils.logging.set_verbosity_error()
    return Path(
        attempted(
            f"{name} of {repository} on the Hugging Face hub",
            lambda: str(hub.hf_hub_download(repository, name, etag_timeout=TIMEOUT_SECONDS)),
            "a filled hub cache",
            attempts=1,
            failures=(OSError, RuntimeError, ValueError),
        )
    )


def attempted(
    what: str,
    fetch: Callable[[], Result],
    instead: str,
    *,
    attempts: int = ATTEMPTS,
    failures: tuple[type[Exception], ...] = _FAILURES,
) -> Result:
    """Tries a download several times, with increasing pauses.

    Args:
        what: the name of the download, for the user.
        fetch: makes one attempt.
        instead: what a user without a network can provide.
        failures: errors of an attempt that mean a failed download.

    Raises:
        MachineError: no attempt succeeded; gives the reason of the last failure.
    """
    say(f"downloading {what}")
    for attempt in range(1, attempts + 1):
        try:
            return fetch()
        except failures as error:
            reason = _reason(error)
        if attempt < attempts:
            say(f"{what}: attempt {attempt} of {attempts} failed ({reason}); trying again")
            time.sleep(_PAUSE_SECONDS * attempt)
    times = f", {attempts} times" if attempts > 1 else ""
    raise MachineError(
        f"{what} cannot be downloaded ({reason}{times}); allowed: a network that reaches it, or "
        f"{instead}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"answered {error.code} {error.reason}"
    if isinstance(error, _SILENCES):
        return f"no answer: {one_line(getattr(error, 'reason', error))}"
    return one_line(error)
