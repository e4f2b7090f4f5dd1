"""The side of the ranks other than 0, which wait for orders of rank 0.

    python -m kdplatform.experiments.parallel.member JSON

Rank 0 starts them with this command, and they exit if rank 0 is gone. Under `torchrun` the command
line calls `follow_torchrun` instead.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

import torch

from kdplatform.errors import DivergedError, KdplatformError, one_line
from kdplatform.experiments.parallel.meeting import Meeting, is_broken_connection
from kdplatform.experiments.parallel.orders import Instruction, agree_on
from kdplatform.experiments.parallel.team import meet
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import use_scratch, writable_folder
from kdplatform.machine import kept_trace, machine_problem
from kdplatform.progress import collected_messages
from kdplatform.torchrun import torchrun_launch
from kdplatform.training import Ranks

# The value of a rank before rank 0 sends an instruction.
_NOTHING: Instruction | None = None


def follow(meeting: Meeting, devices: Mapping[str, torch.device]) -> int:
    """Carries out orders until there are no more; returns the exit code.

    Args:
        devices: the devices of this rank, by kind.
    """
    meeting.arrive()
    number = 0
    ranks = Ranks(meeting.rank, meeting.size)
    try:
        while (kind := meeting.wait_for_order(number)) is not None:
            device = devices[kind]
            if number == 0:
                meeting.join(device)
            number += 1
            with collected_messages(), suppress(DivergedError):  # rank 0 reports it
                _carry_out(ranks.told(_NOTHING), ranks, device)
    except KdplatformError as error:
        meeting.report(type(error).__name__, str(error))
        return 1
    except Exception as error:
        _report_unforeseen(meeting, error)
        return 1
    return 0


def _carry_out(told: Instruction | None, ranks: Ranks, device: torch.device) -> None:
    assert told is not None
    use_scratch(writable_folder("data_folder", told.folder))
    dataset = Workspace(told.config, told.folder, device, reuse=True).dataset
    agree_on(ranks, dataset)
    told.order.follow(ranks, dataset, device)


def _report_unforeseen(meeting: Meeting, error: Exception) -> None:
    """Reports an error with a trace, unless it is a connection that another rank's end broke."""
    if is_broken_connection(error):
        return
    kept = kept_trace(error)
    where = f"; its trace is in {kept}" if kept else ""
    said = machine_problem(error) or f"unforeseen {type(error).__name__}: {one_line(error)}"
    meeting.report("MachineError", f"{said}{where}")


def follow_torchrun() -> int:
    """Follows rank 0 as one of the processes that `torchrun` started."""
    launch = torchrun_launch()
    assert launch is not None
    meeting = meet(launch.address, launch.rank, launch.size, hosts=False, attempt=launch.attempt)
    return follow(meeting, _devices(launch.local_rank))


def main(settings: str) -> None:
    """Follows the process that started this one."""
    given = json.loads(settings)
    sys.path[:] = given["path"]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_rank_0, daemon=True).start()
    torch.set_num_threads(given["threads"])
    host, port = given["address"]
    meeting = meet((host, port), given["rank"], given["size"], hosts=False)
    code = follow(meeting, _devices(given["device"]))
    # Exits without the shutdown of libraries, which may wait for ranks that are gone.
    os._exit(code)


def _devices(index: int) -> dict[str, torch.device]:
    return {"cpu": torch.device("cpu"), "cuda": torch.device("cuda", index)}


def _leave_with_rank_0() -> None:
    """Ends this process if the other end of its standard input is closed."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
