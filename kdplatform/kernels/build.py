"""Builds and loads the kernels, at the first call of the loss or ahead of time by command.

The cache stores a build under a key of everything that it depends on. A build is made in its own
folder and moved into place. An incomplete build is made again. One process builds at a time, under
a lock of the operating system, which dies with its holder. A process that waits too long continues
with the reference.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import filelock

from kdplatform.kernels import backend, cache
from kdplatform.kernels.backend import BackendStatus
from kdplatform.kernels.modes import mode
from kdplatform.kernels.toolchain import (
    MODULE_NAME,
    Command,
    Cuda,
    ToolchainError,
    build_key,
    cache_folder,
    compile_commands,
    cuda_toolkit,
    cxx_compiler,
    job_count,
    library_path,
    link_arguments,
    ninja_program,
)
from kdplatform.progress import say

WAIT_SECONDS = 600.0
"""Seconds to wait for another process's build; `$KDPLATFORM_KERNELS_TIMEOUT` overrides it."""

Progress = Callable[[str], None]


class BuildError(RuntimeError):
    """The kernels could not be built. The message is one line, with the path of the log if any."""


_settling = threading.Lock()


def ensure_built(progress: Progress | None = None) -> BackendStatus:
    """Load the kernels, after building them if necessary, and return which backend serves.

    The first call of `kd_loss` in a process calls this. Call it yourself to load ahead of time.
    Later calls do nothing. If a build is impossible, one warning gives the reason and the reference
    serves. CUDA sources are compiled only for CUDA devices that are visible.

    Args:
        progress: called with a line of text during the build. None: one line to stderr when a
            build begins.

    Raises:
        BuildError: `$KDPLATFORM_KERNELS` is "require" and there is no library.
        ValueError: `$KDPLATFORM_KERNELS` has an unknown value.
    """
    with _settling:
        if not backend.loaded.settled:
            _settle(progress or _say_that_it_begins())
            backend.loaded.settled = True
    return backend.status()


def _settle(progress: Progress) -> None:
    chosen = mode()
    if chosen == "off":
        backend.loaded.failure = "KDPLATFORM_KERNELS=off"
        return
    try:
        backend.load(_find_or_build(progress, retry=chosen == "require"))
    except (BuildError, ToolchainError, ImportError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if chosen == "require":
            raise BuildError(f"KDPLATFORM_KERNELS=require, but {reason}") from error
        backend.loaded.failure = reason
        warnings.warn(
            f"the loss kernels are not used: {reason}; the PyTorch reference serves",
            RuntimeWarning,
            stacklevel=4,
        )


def _say_that_it_begins() -> Progress:
    lines: list[str] = []

    def progress(line: str) -> None:
        if not lines:
            print(f"kdplatform: {line.partition(':')[0]}", file=sys.stderr)
        lines.append(line)

    return progress


def _find_or_build(progress: Progress, *, retry: bool) -> Path:
    devices = backend.device_architectures()
    existing = backend.find_library()
    if existing is not None and (not devices or existing.parent.name.startswith("cuda")):
        return existing
    cuda = None
    if devices:
        with contextlib.suppress(ToolchainError):
            cuda = cuda_toolkit(devices)
    if not retry:
        _raise_if_failed_before(cuda)
    return _build(cuda, progress)


def build(
    cuda: bool = False,
    progress: Progress | None = None,
    architectures: tuple[str, ...] | None = None,
) -> Path:
    """Build the kernels ahead of time, whether a device is visible or not.

    Args:
        cuda: compile the CUDA sources too.
        progress: called with a line of text during the build.
        architectures: of CUDA, such as ("9.0",); see `toolchain.cuda_toolkit`.

    Returns:
        The library. If nothing has changed it is the existing one.

    Raises:
        BuildError: a compiler failed or took too long.
        ToolchainError: a tool is missing, or others can write to the folder of builds.
    """
    return _build(cuda_toolkit(architectures) if cuda else None, progress)


def _build(cuda: Cuda | None, progress: Progress | None) -> Path:
    architectures = cuda.architectures if cuda else ()
    target = library_path(architectures)
    if problem := cache.untrusted(target):
        raise ToolchainError(problem)
    cache.hold(target.parent)
    if cache.record_of(target) is not None:
        return target
    seconds = _wait_seconds()
    try:
        with filelock.FileLock(target.parent / "lock", timeout=seconds):
            if cache.record_of(target) is None:
                if target.exists():
                    say(f"{target} is damaged or altered; it is compiled again")
                _build_locked(target, cuda, progress or (lambda line: None))
                cache.prune(target.parent.parent)
    except filelock.Timeout:
        raise BuildError(
            f"another process has been building {target} for {seconds:.0f} s"
        ) from None
    return target


def _build_locked(target: Path, cuda: Cuda | None, progress: Progress) -> None:
    for stale in target.parent.glob("build-*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    start = time.monotonic()
    try:
        compiler = cxx_compiler()
        write_ninja_file(folder, compiler, cuda)
        what = f"CPU and CUDA {' '.join(cuda.architectures)}" if cuda else "CPU"
        words = f"compiling the {what} kernels, once on this machine"
        _run_ninja(folder, target, lambda s: progress(f"{words}: {s:.0f} s so far"))
        seconds = time.monotonic() - start
        record = {
            "key": build_key(cuda.architectures if cuda else ()),
            "compiler": compiler,
            "cuda_home": str(cuda.home) if cuda else None,
            "architectures": cuda.architectures if cuda else (),
            "seconds": round(seconds, 1),
        }
        (target.parent / "failed.json").unlink(missing_ok=True)
        cache.put(target, folder / target.name, record)
        progress(f"compiled the {what} kernels in {seconds:.0f} s: {target}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_ninja_file(folder: Path, compiler: str, cuda: Cuda | None) -> None:
    """Write `build.ninja` into the folder; its default target is the library."""
    commands = compile_commands(compiler, cuda)
    lines = [
        "ninja_required_version = 1.3",
        "rule compile",
        "  command = $run -c $in -o $out",
        "rule link",
        f"  command = {_shell(link_arguments(compiler, cuda)[:2])} $in "
        f"{_shell(link_arguments(compiler, cuda)[2:])} -o $out",
    ]
    for command in commands:
        lines += _ninja_edge(command)
    objects = " ".join(command.target for command in commands)
    lines.append(f"build {MODULE_NAME}.so: link {objects}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def _ninja_edge(command: Command) -> list[str]:
    source = str(command.source).replace("$", "$$").replace(":", "$:").replace(" ", "$ ")
    return [f"build {command.target}: compile {source}", f"  run = {_shell(command.arguments)}"]


def _shell(arguments: tuple[str, ...]) -> str:
    import shlex

    return " ".join(map(shlex.quote, arguments)).replace("$", "$$")


def _run_ninja(folder: Path, target: Path, progress: Callable[[float], None]) -> None:
    """Run ninja, and stop it and its compilers after the time limit."""
    log = target.parent / "build.log"
    start = time.monotonic()
    command = [ninja_program(), "-C", str(folder), "-j", str(job_count())]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                elapsed = time.monotonic() - start
                if elapsed > _wait_seconds():
                    raise BuildError(
                        f"compiling took more than {_wait_seconds():.0f} s (log: {log})"
                    )
                progress(elapsed)
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                _end(process)
    if process.returncode != 0:
        (target.parent / "failed.json").write_text(json.dumps(_tools_fingerprint()))
        raise BuildError(f"the compiler failed (log: {log})")


def _end(ninja: subprocess.Popen[bytes]) -> None:
    # Compilers have their own process groups: ninja ends them when it is told to stop.
    ninja.send_signal(signal.SIGINT)
    try:
        ninja.wait(timeout=10)
    except subprocess.TimeoutExpired:
        ninja.kill()
        ninja.wait()


def _tools_fingerprint() -> list[object]:
    compiler = cxx_compiler()
    return [compiler, os.stat(compiler).st_mtime_ns]


def _raise_if_failed_before(cuda: Cuda | None) -> None:
    """Refuse what failed before with the same compiler, so that not every process retries it."""
    folder = library_path(cuda.architectures if cuda else ()).parent
    try:
        failed = json.loads((folder / "failed.json").read_text())
    except (OSError, ValueError):
        return
    if failed == _tools_fingerprint():
        raise BuildError(
            f"the compiler failed before (log: {folder / 'build.log'}; "
            "kdplatform kernels build tries again)"
        )


def _wait_seconds() -> float:
    text = os.environ.get("KDPLATFORM_KERNELS_TIMEOUT", "")
    try:
        seconds = float(text or WAIT_SECONDS)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BuildError(f"KDPLATFORM_KERNELS_TIMEOUT: {text!r}; allowed: seconds, 0 or more")
    return seconds


__all__ = ["BackendStatus", "BuildError", "build", "cache_folder", "ensure_built"]
