"""Which loss kernel a command trains with."""

import warnings

import torch

from kdplatform.errors import MachineError, UserError
from kdplatform.kernels import BackendStatus, status
from kdplatform.kernels.build import BuildError, ensure_built
from kdplatform.progress import changing_line, say


def build_loss_kernels() -> None:
    """Builds the loss kernels where that is possible and was not done; says so, or why not.

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


def loss_backend(device: torch.device) -> str:
    """Returns the backend that serves the device, for a run's tag."""
    return backend_status().serving(device)


def backend_status() -> BackendStatus:
    """Returns what serves which device; builds nothing.

    Raises:
        UserError: `$KDPLATFORM_KERNELS` has an unknown value.
    """
    try:
        return status()
    except ValueError as error:
        raise UserError(str(error)) from None
