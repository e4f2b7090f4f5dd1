"""`kdplatform kernels build` and `kdplatform kernels status`."""

from collections.abc import Sequence

from kdplatform.errors import MachineError, UserError, unknown_name
from kdplatform.progress import changing_line

USAGE = "build [--cuda] [--architectures 8.0,9.0] | status"


def run(words: Sequence[str]) -> None:
    """Builds the loss kernels ahead of their first use, or says what serves which device.

    Raises:
        UserError: a word is not expected.
        MachineError: a tool is missing or the build failed.
    """
    action, options = (words[0], list(words[1:])) if words else ("", [])
    if action == "build":
        _build(options)
    elif action == "status" and not options:
        print(status_text())
    elif action == "status":
        raise UserError(f"kernels status takes no parameters; given: {' '.join(options)}")
    else:
        raise unknown_name("kernels", action, ["build", "status"])


def status_text() -> str:
    """Returns which backend serves CPU and CUDA tensors, why, and for which architectures."""
    from kdplatform.experiments.backend import backend_status

    kernels = backend_status()
    lines = [
        f"cpu            {kernels.cpu}: {kernels.cpu_reason}",
        f"cuda           {kernels.cuda}: {kernels.cuda_reason}",
    ]
    if kernels.architectures:
        lines.append(f"architectures  {', '.join(kernels.architectures)}")
    return "\n".join(lines)


def _build(options: list[str]) -> None:
    from kdplatform.kernels.build import BuildError, build
    from kdplatform.kernels.toolchain import ToolchainError

    architectures = None
    cuda = False
    while options:
        option = options.pop(0)
        if option == "--cuda":
            cuda = True
        elif option == "--architectures" and options:
            cuda, architectures = True, tuple(options.pop(0).split(","))
        else:
            raise UserError(f"{option!r} is not expected here; allowed: kernels {USAGE}")
    try:
        with changing_line() as report:
            library = build(cuda, report, architectures)
    except (BuildError, ToolchainError) as error:
        raise MachineError(str(error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"built: {library}")
