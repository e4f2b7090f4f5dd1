"""How the processes that train one model find each other, and notice that one has died.

They communicate through one of torch's key-value stores. Rank 0 announces orders there. Every other
rank reports its presence, its versions, regular signs of life, and the reason of a failure.
"""

import hashlib
import os
import platform
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from kdplatform import version as installed
from kdplatform.training.ranks import PATIENCE

BEAT_SECONDS = 1.0
# A rank on another machine counts as dead after this time without a sign of life.
SILENT_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.02
_LEAVE = "leave"


@dataclass(frozen=True)
class Meeting:
    """The store from the view of one rank."""

    store: Store
    rank: int
    size: int

    # ---- orders

    def announce(self, number: int, word: str) -> None:
        """Tells all ranks that an order of this number follows; the word is a kind of device."""
        self.store.set(f"order/{number}", word)

    def dismiss(self, number: int) -> None:
        """Tells all ranks that no order follows."""
        self.announce(number, _LEAVE)

    def wait_for_order(self, number: int) -> str | None:
        """Waits for an order; returns its kind of device, None if there will be no order."""
        key = f"order/{number}"
        while not self.store.check([key]):
            time.sleep(_LOOK_EVERY_SECONDS)
        word: str = self.store.get(key).decode()
        return None if word == _LEAVE else word

    # ---- who is there

    def arrive(self) -> None:
        """Reports this rank's presence and versions, and from now on signs of life."""
        self.store.set(f"version/{self.rank}", version())
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while True:
            try:
                self.store.add(f"beat/{self.rank}", 1)
            except RuntimeError:  # the store ends with rank 0
                return
            time.sleep(BEAT_SECONDS)

    def version_of(self, rank: int) -> str | None:
        """Returns the versions of a rank; None if it has not arrived yet."""
        key = f"version/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else None

    def beats_of(self, rank: int) -> int:
        """Returns the number of a rank's signs of life."""
        return int(self.store.add(f"beat/{rank}", 0))

    # ---- what went wrong

    def report(self, kind: str, message: str) -> None:
        """Reports why this rank ends: the name of an error's class, and its message."""
        self.store.set(f"error/{self.rank}", f"{kind}\n{message}")

    def reported(self, rank: int) -> tuple[str, str] | None:
        """Returns the error that a rank reported, if any."""
        key = f"error/{rank}"
        if not self.store.check([key]):
            return None
        kind, _, message = self.store.get(key).decode().partition("\n")
        return kind, message

    # ---- torch's process group

    def join(self, device: torch.device) -> None:
        """Builds the process group of all ranks; returns when all have joined.

        Tensors on the CPU use gloo, also if there are GPUs. Tensors on GPUs use NCCL.
        """
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore("group", self.store),
            rank=self.rank,
            world_size=self.size,
            timeout=PATIENCE,
        )


@cache
def version() -> str:
    """Returns the versions of this process: the package, its sources, torch, and the host."""
    sources = hashlib.sha256()
    folder = Path(installed.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        sources.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    own = f"kdplatform {installed.installed_version()} ({sources.hexdigest()[:8]})"
    return f"{own}, torch {torch.__version__}, Python {platform.python_version()}"


def stay_on_this_machine() -> None:
    """Lets gloo use the loopback interface, which does not need a resolvable host name."""
    if platform.system() == "Linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def is_broken_connection(error: BaseException) -> bool:
    """Returns whether an error comes from a collective whose other end is gone."""
    said = str(error)
    own = isinstance(error, dist.DistError)
    return own or (isinstance(error, RuntimeError) and ("gloo" in said or "onnection" in said))
