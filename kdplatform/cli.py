"""The command line: `kdplatform` and `python -m kdplatform`, one sub-command per entry point.

torch and MLflow are imported after the words are read, and after all checks that need neither.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing import resource_tracker

import click

import kdplatform
from kdplatform import interruption
from kdplatform.arguments import (
    ENTRY_POINTS,
    FROM_PROJECT,
    WITHOUT_PROJECT,
    Arguments,
    Parameter,
    once,
    read_arguments,
    refusal,
)
from kdplatform.data import check_dataset, dataset_names
from kdplatform.errors import KdplatformError, UserError, one_line, unknown_name
from kdplatform.files import writable_folder
from kdplatform.kernels.modes import mode
from kdplatform.machine import check_home, kept_trace, machine_problem
from kdplatform.methods import method_names
from kdplatform.models import model_names
from kdplatform.progress import say, show
from kdplatform.redaction import redacted
from kdplatform.settings.fields import (
    SHORTCUTS,
    TUNING_SHORTCUTS,
    FieldDescription,
    Known,
    describe_fields,
)
from kdplatform.settings.methods import grouping_attributes
from kdplatform.settings.project import load_project, project_names
from kdplatform.settings.remarks import method_remarks, own_alpha_remark, shortened_warmups
from kdplatform.settings.schema import ProjectConfig, flatten
from kdplatform.settings.words import plain_text
from kdplatform.text import visible
from kdplatform.torchrun import torchrun_launch
from kdplatform.tuning.dimensions import check_search

INTERRUPTED = 130
# The exit code of a process that SIGPIPE ends.
BROKEN_PIPE = 141
_HELP_WORDS = ["-h", "--help"]
_VERSION = "--version"
# Words that belong to no option are kept, because they set fields of the configuration.
_LENIENT = {"ignore_unknown_options": True, "allow_extra_args": True}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    0, 1 (machine), 2 (input), 3 (a gate failed, or a search found nothing), 130 (interrupted).

    A fault of the user or the machine shows no traceback. An unexpected error is also one line,
    which names the file with the traceback.
    """
    words = list(sys.argv[1:] if words is None else words)
    _open_closed_streams()
    with interruption.noted((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        return _exit_code(words)


def _exit_code(words: list[str]) -> int:
    try:
        launch = torchrun_launch()
        if launch is not None and launch.rank > 0:
            from kdplatform.experiments.parallel.member import follow_torchrun

            return follow_torchrun()
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe, as in `... --help | head`. Remaining output is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if interruption.asked():  # a library turned the interruption into an error of its own
            return _interrupted()
        if isinstance(error, KdplatformError):
            return _fail(str(error), error.exit_code)
        kept = kept_trace(error)
        where = f"; its trace is in {kept}" if kept else ""
        return _fail(f"{machine_problem(error) or _unforeseen(error)}{where}", 1)
    return 0


def _open_closed_streams() -> None:
    """Opens standard streams that the caller has closed (`>&-`), and discards their output.

    Otherwise the next opened file gets their number, and printed text goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number, inheritable=True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _shield_helper() -> None:
    """Starts the process that removes resources shared between processes, ignoring SIGHUP.

    The end of a terminal also signals it. A second one would start without any state, and show a
    traceback for every resource that it is told to remove.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    resource_tracker.ensure_running()
    signal.signal(signal.SIGHUP, before)


def _interrupted() -> int:
    return _fail("interrupted; the same command goes on from the last epoch", INTERRUPTED)


def _unforeseen(error: Exception) -> str:
    return f"unforeseen {type(error).__name__}: {one_line(error)}"


def _fail(message: str, exit_code: int) -> int:
    line = visible(redacted(" ".join(message.split())))
    print(f"kdplatform: {line}", file=sys.stderr)
    return exit_code


def _run(words: list[str]) -> None:
    """Lets click read the words. Its errors are reported like all others."""
    words = ["--help"] if not words or words[0] == "help" else words
    if not set(words) & set(_HELP_WORDS):
        check_home()
    try:
        # Not `main`, which handles interruptions and closed pipes in its own way.
        with commands.make_context("kdplatform", words) as ctx:
            commands.invoke(ctx)
    except click.exceptions.Exit:
        return  # help was shown
    except click.BadOptionUsage as error:
        name = error.option_name
        raise UserError(f"{name} is given without a value; allowed: {name} value") from None
    except click.ClickException as error:
        raise UserError(error.format_message()) from None


# ---- commands


class _Group(click.Group):
    """Commands in the order of definition. For an unknown one the nearest are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in (*_HELP_WORDS, _VERSION):
            name = "command" if ctx.parent is None else str(ctx.info_name)
            raise unknown_name(name, first, self.commands)
        return super().parse_args(ctx, args)


class EntryPoint(click.Command):
    """A command that works on a project. Its help also shows the project's fields."""

    def __init__(self, name: str, help_text: str) -> None:
        options: list[click.Parameter] = [p.option for p in ENTRY_POINTS[name]]
        if any(p.name == "reuse" for p in ENTRY_POINTS[name]):
            options.append(click.Option(["--no-reuse", "no_reuse"], is_flag=True))
        # Not click's own, because the help depends on the project that another option names.
        options.append(click.Option([*_HELP_WORDS, "shows_help"], is_flag=True))
        super().__init__(name, _LENIENT, params=options, help=help_text, add_help_option=False)

    def read(self, ctx: click.Context) -> Arguments:
        """Returns the words of a context by their meaning."""
        given = {p.name: ctx.params[p.name] for p in ENTRY_POINTS[str(self.name)]}
        return read_arguments(str(self.name), given, ctx.args, ctx.params.get("no_reuse", False))

    def invoke(self, ctx: click.Context) -> None:
        """Runs the command, or shows its help."""
        name, arguments = str(self.name), self.read(ctx)
        declared = [parameter.name for parameter in ENTRY_POINTS[name]]
        project, given_as = arguments.project, arguments.project_given_as
        if arguments.run is not None:
            from kdplatform.experiments.former_command import configuration_of

            project, given_as = str(configuration_of(arguments.run)), "run"
        known = Known(declared, lambda field: not refusal(name, field))
        config = load_project(project, arguments.overrides, known, given_as)
        if ctx.params["shows_help"]:
            show(self.help_page(ctx, config))
            return
        remarks = shortened_warmups(config) + own_alpha_remark(config, arguments.overrides)
        if name in ("sweep", "report"):
            remarks += method_remarks(config, arguments.overrides)
        for line in remarks:
            say(line)
        if name == "report":
            from kdplatform.experiments.report import run_report

            run_report(config, arguments)
            return
        try:
            mode()
        except ValueError as error:
            raise UserError(str(error)) from None
        if name == "tune":
            check_search(config)
        compared = {"attributes": config.attributes}
        if name == "tune" and config.attributes and config.tuning.attribute != "auto":
            compared["attribute"] = (config.tuning.attribute,)
        check_dataset(config.dataset, compared | grouping_attributes(config))
        writable_folder("data_folder", arguments.data_folder)
        _shield_helper()
        if name == "tune":
            from kdplatform.tuning.command import run_tune

            run_tune(config, arguments)
        elif name == "predict":
            from kdplatform.experiments.predict import run_predict

            run_predict(config, arguments)
        else:
            from kdplatform.experiments.commands import run_command

            run_command(name, config, arguments)

    def help_page(self, ctx: click.Context, config: ProjectConfig) -> str:
        """Returns what `--help` prints: the parameters, and the project's fields with values."""
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        declared = ENTRY_POINTS[str(self.name)]
        # Names of parameters that stand for another field.
        renamed = {p.name for p in declared if p.field}
        fields = {field.name: field for field in describe_fields(config)}
        shown = [
            field
            for field in fields.values()
            if field.name not in renamed and not refusal(str(self.name), field.name)
        ]
        values = {name: plain_text(value) for name, value in flatten(config).items()}
        with formatter.section("Parameters, with their defaults"):
            formatter.write_dl([_line(p, fields) for p in declared])
        with formatter.section(f"Fields of project {config.name}, with its values"):
            formatter.write_dl(
                [(f"--{f.name} {values[f.name]}", f"{f.description} [{f.allowed}]") for f in shown]
            )
        with formatter.section("Names"):
            formatter.write_dl(
                [
                    ("projects", ", ".join(project_names())),
                    ("datasets", ", ".join(dataset_names())),
                    ("models", ", ".join(model_names())),
                    ("methods", ", ".join(method_names())),
                ]
            )
        return formatter.getvalue().rstrip()


def _line(parameter: Parameter, fields: Mapping[str, FieldDescription]) -> tuple[str, str]:
    """Returns a parameter for the help. A field of the configuration has its own description."""
    name = parameter.name
    said: Parameter | FieldDescription = parameter
    if parameter.default == FROM_PROJECT:
        # A method without a temperature has no such field.
        absent = FieldDescription(name, "not for this method", "")
        field = parameter.field or (SHORTCUTS | TUNING_SHORTCUTS).get(name, name)
        said = fields.get(field, absent)
    return f"--{name} {parameter.default}", f"{said.description} [{said.allowed}]"


commands = _Group(
    "kdplatform",
    help="Knowledge distillation whose effect on class bias and fairness is measured.",
    epilog="kdplatform COMMAND --help shows every parameter; mlflow run . -e COMMAND -P name=value "
    "runs the same.",
    context_settings={"help_option_names": _HELP_WORDS},
)


def _show_version(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        show(f"kdplatform {kdplatform.__version__}")
        ctx.exit()


commands.params.append(
    click.Option(
        [_VERSION],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_show_version,
        help="Show the version and exit.",
    )
)
for _name, _help in (
    ("distill", "Train or reuse teacher and NDS, distil the student, compare the three."),
    ("teacher", "Train or reuse the teacher of each seed."),
    ("student", "Train or reuse the student without a teacher (NDS) of each seed."),
    ("sweep", "Distil at all temperatures and seeds side by side; train only what is missing."),
    ("tune", "Search for settings that trade accuracy against fairness."),
    ("predict", "Write the predictions of any model on a dataset to a file."),
    ("report", "Write tables, figures and verdicts of a study, from the tracking store alone."),
):
    commands.add_command(EntryPoint(_name, _help))


def read_words(entry_point: str, words: Sequence[str]) -> Arguments:
    """Returns the meaning of an entry point's words, for a script or a test."""
    command = commands.commands[entry_point]
    assert isinstance(command, EntryPoint), entry_point
    return command.read(command.make_context(entry_point, list(words)))


# An option given twice is refused instead of overwritten.
_option = partial(click.option, multiple=True)


def _described(parameter: Parameter) -> click.Option:
    """Returns a parameter of a command without a project, which click's help describes."""
    default = "" if parameter.default in ("none", "auto") else f"; default {parameter.default}"
    return click.Option(
        [f"--{parameter.name}"],
        multiple=True,
        metavar=parameter.allowed,
        help=f"{parameter.description}{default}",
    )


def _compare(sides: tuple[str, ...], **options: tuple[str, ...]) -> None:
    """Compare side B with side A, the reference.

    A side is a run id, a run id with a condition (RUN@condition), or a prediction file (.parquet or
    .csv). Several of them, one per seed, are separated by commas. Without --attributes the columns
    that look like attributes are compared. A gate that fails ends with exit code 3.
    """
    defaults = {parameter.name: parameter.default for parameter in WITHOUT_PROJECT["compare"]}
    given = defaults | {name: once(name, texts) for name, texts in options.items() if texts}
    named = [given.pop(name) for name in ("a", "b")]
    named = [side for side in named if side != "none"]
    if sides and named:
        raise UserError("sides are given with --a or --b and without; allowed: A B, or --a A --b B")
    both = sides or tuple(named)
    if len(both) != 2:
        raise UserError(
            f"compare takes two sides, {len(both)} are given; allowed: two sides, each run ids "
            "or files, comma-separated"
        )
    from kdplatform.experiments.compare import run_compare

    run_compare(both, **given)


commands.add_command(
    click.Command(
        "compare",
        params=[
            click.Argument(["sides"], nargs=-1, metavar="A B"),
            *map(_described, WITHOUT_PROJECT["compare"]),
        ],
        help=_compare.__doc__,
        callback=_compare,
    )
)


@commands.command()
@click.argument("folder", default=".")
@_option("--project", metavar="name", help="file of projects/ to begin with; default digits")
@_option("--name", metavar="text", help="name of the new project; default: that of --project")
def init(folder: str, **options: tuple[str, ...]) -> None:
    """Write MLproject, python_env.yaml and a project file into FOLDER, for `mlflow run .` there."""
    from kdplatform.starter import write_starter

    given = {name: once(name, texts) for name, texts in options.items() if texts}
    for path in write_starter(folder, given.get("project", "digits"), given.get("name")):
        show(f"written: {path}")


@commands.command(context_settings=_LENIENT)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Show versions, device, kernel backend, tracking store, data folder and disk."""
    if ctx.args:
        raise UserError(f"doctor takes no parameters; given: {' '.join(ctx.args)}")
    from kdplatform.doctor import report

    show(report())


@commands.group(cls=_Group)
def kernels() -> None:
    """Compile the loss kernels ahead of their first use, or show which backend is used."""


@kernels.command()
@click.option("--cuda", is_flag=True, help="compile the CUDA sources too")
@click.option(
    "--architectures",
    metavar="8.0,9.0",
    help="CUDA architectures, with which --cuda is implied; not given: "
    "$KDPLATFORM_CUDA_ARCHITECTURES, else those of 8.0,8.6,8.9,9.0,10.0,12.0 that nvcc knows",
)
def build(cuda: bool, architectures: str | None) -> None:
    """Compile the kernels into the cache."""
    from kdplatform.doctor import build_kernels

    build_kernels(cuda, architectures)


@kernels.command()
def status() -> None:
    """Show which backend computes the loss of CPU and CUDA tensors, and why."""
    from kdplatform.doctor import kernel_status

    show(kernel_status())
