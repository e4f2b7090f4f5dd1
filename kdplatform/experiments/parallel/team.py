"""The side of rank 0: it starts the other processes, gives orders, and notices dead ranks."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

import mlflow
import torch
import torch.distributed as dist
from mlflow import MlflowClient
from torch._C._distributed_c10d import PrefixStore, TCPStore

from kdplatform import errors
from kdplatform.errors import DivergedError, KdplatformError, MachineError
from kdplatform.experiments.parallel.meeting import (
    SILENT_SECONDS,
    Meeting,
    is_broken_connection,
    stay_on_this_machine,
    version,
)
from kdplatform.experiments.parallel.orders import Instruction, Order, agree_on
from kdplatform.experiments.workspace import Workspace
from kdplatform.torchrun import torchrun_launch
from kdplatform.training import Ranks

_MEMBER = "kdplatform.experiments.parallel.member"
_LOOK_EVERY_SECONDS = 0.5
# Time for loading torch and the data on a busy machine.
_ARRIVAL_SECONDS = 300.0
# A broken connection is noticed earlier than the death that caused it.
_BLAME_SECONDS = SILENT_SECONDS + 3.0
# Time after which the watch ends a process that waits in a GPU's collective for a dead rank.
_GRACE_SECONDS = 10.0


@dataclass
class Team:
    """The processes that train with this one, which is rank 0.

    Attributes:
        children: the processes that this one started, by rank; empty under `torchrun`.
    """

    meeting: Meeting
    device: torch.device
    children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = Ranks(0, self.meeting.size)
        self._orders = 0
        self._joined = self._closed = False
        self._runs: list[str] = []
        self._waiting = False
        self._beats: dict[int, tuple[int, float]] = {}
        self._threads = torch.get_num_threads()

    # ---- orders

    @contextmanager
    def following(self, workspace: Workspace, order: Order) -> Iterator[Ranks]:
        """Lets the other ranks follow an order while the block does this rank's part.

        Raises:
            MachineError: a rank has ended, which the message names. The team then ends too.
        """
        try:
            if not self._joined:
                self._await_all()
            self._runs = [run.info.run_id for run in [mlflow.active_run()] if run is not None]
            self._waiting = True
            self.meeting.announce(self._orders, self.device.type)
            self._orders += 1
            if not self._joined:
                self._join()
            self.ranks.told(Instruction(workspace.config, workspace.folder.resolve(), order))
            agree_on(self.ranks, workspace.dataset)
            yield self.ranks
        except DivergedError:
            raise  # raised on every rank, and each now waits for another order
        except BaseException as error:
            blamed = self._blamed() if is_broken_connection(error) else None
            self.close()
            if blamed is not None:
                raise blamed from None
            raise
        finally:
            self._waiting = False

    def close(self) -> None:
        """Dismisses the other ranks, and ends those that do not exit."""
        if self._closed:
            return
        self._closed = True
        with suppress(RuntimeError):
            self.meeting.dismiss(self._orders)
        for child in self.children.values():
            assert child.stdin is not None
            child.stdin.close()  # it exits at once when this is closed
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        if self._joined and dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
        torch.set_num_threads(self._threads)

    # ---- who is there

    def _await_all(self) -> None:
        """Waits until all ranks have arrived, and compares their versions."""
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        for rank in range(1, self.meeting.size):
            while (theirs := self.meeting.version_of(rank)) is None:
                if (gone := self._gone()) is not None:
                    raise gone
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"rank {rank} of {self.meeting.size} has not started within "
                        f"{_ARRIVAL_SECONDS:.0f} s"
                    )
                time.sleep(0.05)
            if theirs != version():
                raise MachineError(
                    f"rank {rank} runs {theirs}, rank 0 runs {version()}; allowed: the same "
                    "versions on all machines"
                )

    def _join(self) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, self._threads // max(1, len(self.children) + 1)))
        self.meeting.join(self.device)
        self._joined = True
        threading.Thread(target=self._watch, daemon=True).start()

    def _gone(self) -> KdplatformError | None:
        """Returns the error that a rank reported, or the one about a rank that has died."""
        for rank in range(1, self.meeting.size):
            with suppress(RuntimeError):
                if (said := self.meeting.reported(rank)) is not None:
                    return _error_of(rank, *said)
        for rank, child in self.children.items():
            if (code := child.poll()) is not None:
                return _death(rank, self.meeting.size, f"ended {_how(code)}")
        if not self.children:
            for rank in range(1, self.meeting.size):
                if self.meeting.version_of(rank) is not None and self._silent(rank):
                    reason = f"has not answered for {SILENT_SECONDS:.0f} s"
                    return _death(rank, self.meeting.size, reason)
        return None

    def _silent(self, rank: int) -> bool:
        now = time.monotonic()
        beats = self.meeting.beats_of(rank)
        last, since = self._beats.get(rank, (-1, now))
        if beats != last:
            last, since = beats, now
        self._beats[rank] = (last, since)
        return now - since > SILENT_SECONDS

    def _blamed(self) -> KdplatformError | None:
        """Returns why a collective failed; None if no rank is to blame."""
        deadline = time.monotonic() + _BLAME_SECONDS
        while time.monotonic() < deadline:
            if (gone := self._gone()) is not None:
                return gone
            time.sleep(_LOOK_EVERY_SECONDS)
        return None

    def _watch(self) -> None:
        """Ends this process if it waits for a dead rank and no error ends the wait."""
        while not self._closed:
            time.sleep(_LOOK_EVERY_SECONDS)
            gone = self._gone() if self._waiting else None
            if gone is not None:
                deadline = time.monotonic() + _GRACE_SECONDS
                while self._waiting and time.monotonic() < deadline:
                    time.sleep(_LOOK_EVERY_SECONDS)
                if self._waiting:
                    self._leave(gone)

    def _leave(self, error: KdplatformError) -> NoReturn:
        print(f"kdplatform: {error}", file=sys.stderr, flush=True)
        with suppress(Exception):
            for run in self._runs:
                MlflowClient().set_terminated(run, "FAILED")
        for child in self.children.values():
            child.kill()
        os._exit(1)


def _error_of(rank: int, kind: str, message: str) -> KdplatformError:
    known = getattr(errors, kind, MachineError)
    made: KdplatformError = known(f"rank {rank}: {message}")
    return made


def _death(rank: int, size: int, reason: str) -> MachineError:
    return MachineError(
        f"rank {rank} of {size} {reason}; the same command goes on from the last epoch, with any "
        "number of processes"
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    with suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"


# ---- the team of this process

_current: Team | None = None


def current_team(workspace: Workspace) -> Team:
    """Returns the team of this process, started if there is none.

    Raises:
        MachineError: no process can be started.
    """
    global _current
    if _current is not None and _current._closed:
        _current = None
    if _current is None:
        _current = _under_torchrun(workspace) or _started(workspace)
    return _current


@atexit.register
def dismiss_team() -> None:
    """Ends the team of this process, if it has one."""
    if _current is not None:
        _current.close()
    elif (launch := torchrun_launch()) is not None and launch.rank == 0:
        # Nothing had to be trained, but the other ranks are waiting.
        with suppress(RuntimeError):
            meet(launch.address, 0, launch.size, not launch.hosted, launch.attempt).dismiss(0)


def meet(address: tuple[str, int], rank: int, size: int, hosts: bool, attempt: int = 0) -> Meeting:
    """Returns a connection to the store through which ranks meet."""
    store = TCPStore(*address, is_master=hosts, wait_for_workers=False)
    return Meeting(PrefixStore(f"kdplatform/{attempt}", store), rank, size)


def _under_torchrun(workspace: Workspace) -> Team | None:
    launch = torchrun_launch()
    if launch is None:
        return None
    meeting = meet(launch.address, 0, launch.size, not launch.hosted, launch.attempt)
    return Team(meeting, workspace.device)


def _started(workspace: Workspace) -> Team:
    """Starts the other ranks on this machine, on the devices that follow this one's."""
    stay_on_this_machine()
    size, device = workspace.processes, workspace.device
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meeting = Meeting(PrefixStore("kdplatform/0", store), 0, size)
    threads = max(1, torch.get_num_threads() // size)
    team = Team(meeting, device)
    for rank in range(1, size):
        settings = {
            "address": ["127.0.0.1", store.port],
            "rank": rank,
            "size": size,
            "device": (device.index or 0) + rank,
            "threads": threads,
            "path": sys.path,
        }
        team.children[rank] = subprocess.Popen(
            [sys.executable, "-m", _MEMBER, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            # Ctrl-C reaches only this process, and the others exit after it.
            start_new_session=True,
        )
    return team
