"""Files from the Hugging Face hub, and downloads that say in one line why they failed."""

import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kdplatform.errors import MachineError, UserError
from kdplatform.optional import optional_module
from kdplatform.progress import say

Result = TypeVar("Result")

ATTEMPTS = 3
TIMEOUT_SECONDS = 20.0
_PAUSE_SECONDS = 1.0


def hub_file(repository: str, name: str, *, needed_by: str, extra: str) -> Path:
    """Returns a file of a repository, from the hub's cache or downloaded into it.

    Args:
        needed_by: the parameter that asks for it, with its value.
        extra: of this package, which installs the hub's client.

    Raises:
        UserError: the client is not installed.
        MachineError: the file is not in the cache and cannot be downloaded.
    """
    hub = optional_module("huggingface_hub", needed_by=needed_by, extra=extra)
    what = f"{name} of {repository} on the Hugging Face hub"
    try:
        cached = hub.try_to_load_from_cache(repository, name)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{needed_by} names no repository of the hub ({reason})") from None
    if isinstance(cached, str):
        return Path(cached)
    # It tries again by itself, and says so with a traceback each time.
    hub.utils.logging.set_verbosity_error()

    def download() -> str:
        path: str = hub.hf_hub_download(repository, name, etag_timeout=TIMEOUT_SECONDS)
        return path

    return Path(attempted(what, download, "a filled hub cache", attempts=1))


def attempted(
    what: str, download: Callable[[], Result], instead: str, attempts: int = ATTEMPTS
) -> Result:
    """Tries a download several times.

    Args:
        what: is downloaded, for the user.
        instead: what a user without a network can provide.

    Raises:
        MachineError: no attempt succeeded; says why the last did not.
    """
    say(f"downloading {what}")
    for attempt in range(1, attempts + 1):
        try:
            return download()
        except (OSError, RuntimeError, ValueError, urllib.error.URLError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if attempt < attempts:
            say(f"{what}: attempt {attempt} of {attempts} failed ({reason}); trying again")
            time.sleep(_PAUSE_SECONDS * attempt)
    raise MachineError(
        f"{what} cannot be downloaded ({reason}); allowed: a network that reaches it, or {instead}"
    )
