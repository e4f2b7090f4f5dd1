"""Unique names of processes, and whether a process of this machine is gone."""

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Returns a name of this process with its machine and its start: `host:process id:birth`.

    Another process may get the same id later, or in another container.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_birth(os.getpid())}"


def host_of(name: str) -> str:
    """Returns the machine of a process, from its name."""
    return name.partition(":")[0]


def is_dead_here(name: str) -> bool:
    """Returns whether a process of this machine is gone. False for other machines."""
    host, _, rest = name.partition(":")
    process, _, birth = rest.partition(":")
    if host != socket.gethostname() or not process.isdecimal():
        return False
    if birth.partition("-")[0] != _namespace():
        return False  # in a container that shares this machine's name
    return not _is_alive(int(process)) or birth != _birth(int(process))


def _birth(process: int) -> str:
    """Returns a mark that distinguishes processes of one id; empty if the system hides it."""
    try:
        # The 22nd field. The 2nd is a name in parentheses, which may contain blanks.
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _namespace()
    return f"{_namespace()}-{fields[19]}"


@cache
def _namespace() -> str:
    """Returns the namespace of this process's process ids."""
    try:
        return os.readlink(_PROC / "self" / "ns" / "pid").strip("pid:[]")
    except OSError:
        return ""


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
