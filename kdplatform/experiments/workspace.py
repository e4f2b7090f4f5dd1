"""The workspace of a command: its configuration, data, device, folders and kernels."""

import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from kdplatform.data import Dataset, load_dataset, remarks, unknown_attribute
from kdplatform.errors import MachineError, UserError
from kdplatform.files import use_scratch, writable_folder
from kdplatform.kernels import BackendStatus, status
from kdplatform.kernels.build import BuildError, ensure_built
from kdplatform.machine import usable_cores
from kdplatform.methods._attacks import check_attackable
from kdplatform.progress import changing_line, say
from kdplatform.settings.schema import DatasetConfig, ProjectConfig
from kdplatform.torchrun import torchrun_launch


@dataclass(frozen=True)
class Workspace:
    """Everything that the steps of one command share.

    Attributes:
        folder: writable parent of datasets, checkpoints and teacher logits.
        device: device of rank 0, if several processes train a model.
        reuse: whether FINISHED runs of the same key are reused instead of training.
        processes: number of processes that train a model together.
    """

    config: ProjectConfig
    folder: Path
    device: torch.device
    reuse: bool
    processes: int = 1

    @cached_property
    def dataset(self) -> Dataset:
        """The project's dataset, generated or downloaded if necessary; prints its content.

        Raises:
            UserError: the project names an attribute that the dataset does not have, or a condition
                that does not apply to its inputs.
        """
        dataset = _loaded_dataset(self.config.dataset, self.folder / "datasets")
        for attribute in self.config.attributes:
            if attribute not in dataset.attributes:
                raise unknown_attribute("attributes", attribute, dataset.name, dataset.attributes)
        for name in self.config.evaluation.conditions:
            check_attackable(dataset, f"condition {name!r}")
        for line in remarks(dataset, self.config.attributes):
            say(line)
        return dataset


@lru_cache(maxsize=1)
def _loaded_dataset(config: DatasetConfig, folder: Path) -> Dataset:
    """Loads a dataset; the last one is kept for the next model that is trained on it."""
    return load_dataset(config, folder)


def open_workspace(
    config: ProjectConfig,
    folder: Path,
    device: str,
    reuse: bool,
    processes: int = 1,
    *,
    trains_here: bool = True,
) -> Workspace:
    """Checks folder and devices before any work starts.

    Args:
        processes: number of processes that train a model together.
        trains_here: whether they train on this machine.

    Raises:
        MachineError: the folder cannot be written.
        UserError: the devices do not exist.
    """
    use_scratch(writable_folder("data_folder", folder))
    if trains_here:
        check_processes(device, processes)
    return Workspace(config, folder, device_of(device), reuse, processes)


def device_of(name: str) -> torch.device:
    """Returns the device of a name.

    Raises:
        UserError: it does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device={name!r} is not there; this machine has {count} CUDA devices")
    return device


def check_processes(name: str, processes: int) -> None:
    """Refuses more processes than there are devices, since each needs one.

    Several processes use the devices from the named one on. On the CPU each needs at least one
    core.

    Raises:
        UserError: there are fewer devices.
    """
    launch = torchrun_launch()
    device = device_of(name)
    if launch is not None:
        if device.index is not None:
            raise UserError(
                f"device={name!r} is not for torchrun, which gives each process its own; allowed: "
                "auto | cpu | cuda"
            )
        return
    if processes == 1:
        return
    there, kind = usable_cores(), "cores"
    if device.type == "cuda":
        there, kind = torch.cuda.device_count() - (device.index or 0), "CUDA devices"
    if processes > there:
        beginning = f" from {name} on" if device.index else ""
        raise UserError(
            f"processes={processes} are more than the {there} {kind}{beginning} of this machine; "
            f"allowed: 1 to {there}"
        )


def build_loss_kernels() -> None:
    """Builds the loss kernels if that is possible and necessary; prints a line about it.

    Raises:
        UserError: `$KDPLATFORM_KERNELS` has an unknown value.
        MachineError: it is "require", and the kernels cannot be built.
    """
    with warnings.catch_warnings(record=True) as caught, changing_line() as report:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            ensure_built(report)
        except ValueError as error:
            raise UserError(str(error)) from None
        except BuildError as error:
            raise MachineError(str(error)) from None
    for warning in caught:
        say(str(warning.message))


def backend_status() -> BackendStatus:
    """Returns the backend of each device; builds nothing.

    Raises:
        UserError: `$KDPLATFORM_KERNELS` has an unknown value.
    """
    try:
        return status()
    except ValueError as error:
        raise UserError(str(error)) from None
