"""Building and loading the kernels: at the first call of the loss, or ahead by command.

A build lies in the cache under a key of all that it depends on. It is made in a folder of its own
and moved into place; one that is not whole is made again. One process builds at a time; the lock is
the operating system's, so it dies with its holder, and whoever waits too long goes on with the
reference.
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
"""How long to wait for another process that builds; `$KDPLATFORM_KERNELS_TIMEOUT` overrides."""

Progress = Callable[[str], None]


class BuildError(RuntimeError):
    """The kernels could not be built; one line, with the log's path if there is one."""


_settling = threading.Lock()


def ensure_built(progress: Progress | None = None) -> BackendStatus:
    """Load the kernels, built first if need be, and say which backend serves.

    The first call of `kd_loss` in a process does this; whoever wants it ahead calls it himself.
    It happens once: later calls do nothing. Where a build is impossible there is one warning that
    says why, and the reference does the work. CUDA sources are compiled only where a CUDA device
    is visible, for the devices that are.

    Args:
        progress: is called with a line of text as the build goes on. None: one line to stderr
            when a build begins.

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
            f"the loss kernels are not used: {reason}; the PyTorch reference does the work",
            RuntimeWarning,
            stacklevel=4,
        )


def _say_that_it_begins() -> Progress:
    lines: list[str] = []

    def progress(line: str) -> None:
        if not lines:
            what = line.partition(":")[0]
            print(f"kdplatform: {what}, once on this machine", file=sys.stderr)
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
    """Build the kernels ahead, whether a device is visible or not.

    Args:
        cuda: compile the CUDA sources too.
        progress: is called with a line of text as the build goes on.
        architectures: of CUDA, such as ("9.0",); see `toolchain.cuda_toolkit`.

    Returns:
        The library, which lay there already if nothing has changed.

    Raises:
        BuildError: a compiler failed or took too long.
        ToolchainError: a tool is missing, or others can write where builds are kept.
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
                    say(f"{target} is not what was written to it; it is compiled again")
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
        _run_ninja(folder, target, lambda s: progress(f"compiling the {what} kernels: {s:.0f} s"))
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
    """Run ninja, and end it and its compilers when the time is up."""
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
    # Compilers have process groups of their own: ninja ends them when it is asked to stop.
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
    """Do not try again in every process what failed with the same compiler."""
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
