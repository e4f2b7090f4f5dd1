"""What `torchrun` tells the processes that it starts. Reads the environment alone."""

import os
from dataclasses import dataclass

from kdplatform.errors import UserError


@dataclass(frozen=True)
class Launch:
    """One of the processes that `torchrun` started.

    Attributes:
        rank: its number among all of them, from 0.
        size: how many they are, on all machines.
        local_rank: its number on its machine.
        address: host and port of the store through which they meet.
        hosted: whether `torchrun` hosts that store; otherwise rank 0 does.
        attempt: how often `torchrun` has started them again.
    """

    rank: int
    size: int
    local_rank: int
    address: tuple[str, int]
    hosted: bool
    attempt: int


def torchrun_launch() -> Launch | None:
    """Returns how this process was started; None if not by `torchrun`, or as the only one."""
    given = os.environ
    if "TORCHELASTIC_RUN_ID" not in given or int(given.get("WORLD_SIZE", "1")) < 2:
        return None
    return Launch(
        rank=int(given["RANK"]),
        size=int(given["WORLD_SIZE"]),
        local_rank=int(given["LOCAL_RANK"]),
        address=(given["MASTER_ADDR"], int(given["MASTER_PORT"])),
        hosted=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(given.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def processes_of(entry_point: str, processes: int) -> int:
    """Returns how many processes train a model together: those of `torchrun`, or as asked.

    Raises:
        UserError: `torchrun` started another number, or a command that starts its own.
    """
    launch = torchrun_launch()
    if launch is None:
        return processes
    if entry_point not in ("teacher", "student", "distill"):
        raise UserError(
            f"{entry_point} is not for torchrun, which started {launch.size} processes; allowed: "
            "teacher, student and distill, and processes=N with sweep and tune"
        )
    if processes not in (1, launch.size):
        raise UserError(
            f"processes={processes} is not what torchrun started: {launch.size}; allowed: leave it "
            "out"
        )
    return launch.size
