"""The command line: `kdplatform` and `python -m kdplatform`, one sub-command per entry point."""

import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import FrameType

from kdplatform.errors import KdplatformError, MachineError, UserError
from kdplatform.parameters import (
    COMPARE_USAGE,
    ENTRY_POINTS,
    HELP,
    Arguments,
    check_entry_point,
    parse_arguments,
)
from kdplatform.settings.project import SHORTCUTS, describe_fields, load_project, project_names

_HELP_WORDS = {"-h", "--help", "help"}
INTERRUPTED = 130
# As of a process that SIGPIPE ends.
BROKEN_PIPE = 141


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 (machine), 2 (input), 130 (interrupted)."""
    words = list(sys.argv[1:] if words is None else words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough, as in `... --help | head`. What Python still writes goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from the last epoch", INTERRUPTED)
    except KdplatformError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        return _fail(
            f"{error.filename or 'a file'} cannot be written ({error.strerror}); allowed: room left"
            f" in the data folder, the tracking store and TMPDIR={tempfile.gettempdir()!r}",
            MachineError.exit_code,
        )
    return 0


def _fail(message: str, exit_code: int) -> int:
    print(f"kdplatform: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(words: list[str]) -> None:
    if not words or words[0] in _HELP_WORDS:
        print(_overview())
        return
    command, rest = words[0], words[1:]
    check_entry_point(command, [*ENTRY_POINTS, *_TOOLS])
    if any(word in _HELP_WORDS for word in rest):
        print(_command_help(command, rest))
    elif command in _TOOLS:
        _TOOLS[command][1](rest)
    else:
        _run_entry_point(command, parse_arguments(command, rest))


def _run_entry_point(command: str, arguments: Arguments) -> None:
    declared = [parameter.name for parameter in ENTRY_POINTS[command]]
    config = load_project(arguments.project, arguments.overrides, declared)
    # Imported late: a wrong word on the command line is answered before torch and mlflow load.
    if command == "report":
        from kdplatform.experiments.report import run_report

        run_report(config, arguments)
        return
    if command == "tune":
        from kdplatform.tuning.command import run_tune

        run_tune(config, arguments)
        return
    from kdplatform.experiments.commands import run_command

    run_command(command, config, arguments)


def _doctor(words: Sequence[str]) -> None:
    if words:
        raise UserError(f"doctor takes no parameters; given: {' '.join(words)}")
    from kdplatform.doctor import report

    print(report())


def _kernels(words: Sequence[str]) -> None:
    from kdplatform.kernel_tools import run

    run(words)


def _compare(words: Sequence[str]) -> None:
    from kdplatform.experiments.compare import run_compare

    run_compare(words)


_TOOLS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "doctor": ("versions, device, kernel backend, tracking store, data folder, disk", _doctor),
    "compare": (COMPARE_USAGE, _compare),
    "kernels": ("build [--cuda] [--architectures 8.0,9.0]: compile ahead; status", _kernels),
}


def _overview() -> str:
    commands = {**HELP, **{name: text for name, (text, _) in _TOOLS.items()}}
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {text}" for name, text in commands.items()]
    return "\n".join(
        [
            "usage: kdplatform COMMAND [--name value ...]",
            "",
            *lines,
            "",
            "kdplatform COMMAND --help shows every parameter; "
            "mlflow run . -e COMMAND -P name=value runs the same.",
        ]
    )


def _command_help(command: str, words: Sequence[str]) -> str:
    if command in _TOOLS:
        return f"usage: kdplatform {command}\n\n  {_TOOLS[command][0]}"
    rest = [word for word in words if word not in _HELP_WORDS]
    arguments = parse_arguments(command, rest)
    config = load_project(arguments.project, arguments.overrides)
    from kdplatform.data import dataset_names
    from kdplatform.models import model_names
    from kdplatform.objectives import method_names
    from kdplatform.settings.schema import flatten
    from kdplatform.settings.words import plain_text

    parameters = [(p.name, p.allowed, p.default, p.description) for p in ENTRY_POINTS[command]]
    values = flatten(config)
    fields = [
        (field.name, field.allowed, plain_text(values[field.name]), field.description)
        for field in describe_fields(config.dataset.name)
    ]
    short = ", ".join(f"{name} = {field}" for name, field in SHORTCUTS.items())
    return "\n".join(
        [
            f"usage: kdplatform {command} [--name value ...]",
            "",
            f"  {HELP[command]}",
            "",
            "parameters: name, what it takes, default",
            *_columns(parameters),
            "",
            f"fields of project {config.name}, set by --name value: name, what it takes, value",
            *_columns(fields),
            "",
            f"short names: {short}",
            f"projects: {', '.join(project_names())}",
            f"datasets: {', '.join(dataset_names())}",
            f"models: {', '.join(model_names())}",
            f"methods: {', '.join(method_names())}",
        ]
    )


def _columns(rows: Sequence[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  "
        + "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]
        )
        for row in rows
    ]
