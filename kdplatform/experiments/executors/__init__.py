"""Executors: where the units of a study are trained. One file per executor."""

from kdplatform.errors import unknown_name
from kdplatform.experiments.executors.base import Assignment, Executor, Outcome
from kdplatform.parameters import EXECUTORS

__all__ = ["Assignment", "Executor", "Outcome", "open_executor"]


def open_executor(
    name: str, *, device: str, workers: int | None, address: str, units: int
) -> Executor:
    """Returns the executor of a name, to be used as a context manager.

    Args:
        device: as it was asked for: auto, cpu, cuda or cuda:N.
        workers: processes of `local`; None: as many as this machine can use.
        address: of the cluster, for `ray`.
        units: how many units there are to be trained; more workers would have nothing to do.

    Raises:
        UserError: there is no such executor, it does not take these parameters, or what it needs is
            not installed.
        MachineError: the cluster does not answer.
    """
    # Imported late: what a worker loads before its first unit is kept small, Ray is an extra.
    if name == "local":
        from kdplatform.experiments.executors.local import LocalExecutor
        from kdplatform.experiments.executors.unit import run_unit

        return LocalExecutor(run_unit, device, workers, units)
    if name == "ray":
        from kdplatform.experiments.executors.ray import RayExecutor
        from kdplatform.experiments.executors.unit import run_unit

        return RayExecutor(run_unit, device, address)
    raise unknown_name("executor", name, EXECUTORS)
