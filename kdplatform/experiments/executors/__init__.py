"""Executors: where the steps of a graph are carried out. One file per executor."""

from kdplatform.arguments import Arguments
from kdplatform.experiments.executors.base import Assignment, Executor, Outcome

__all__ = ["Assignment", "Executor", "Outcome", "open_executor"]


def open_executor(arguments: Arguments, steps: int) -> Executor:
    """Returns the requested executor, with at most as many workers as there are steps.

    Raises:
        UserError: the executor does not take these parameters, or what it needs is not installed.
        MachineError: the cluster does not answer.
    """
    # Imported late, because a worker should load little before its first step, and Ray is an extra.
    from kdplatform.experiments.executors.worker import run_step

    if arguments.executor == "ray":
        from kdplatform.experiments.executors.ray import RayExecutor

        return RayExecutor(run_step, arguments.device, arguments.address, arguments.processes)
    from kdplatform.experiments.executors.local import LocalExecutor

    return LocalExecutor(run_step, arguments.device, arguments.workers, steps, arguments.processes)
