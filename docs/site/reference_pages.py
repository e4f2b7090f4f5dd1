"""Pages of the site that are written from the code: commands and configuration."""

from collections.abc import Iterable, Iterator
from inspect import cleandoc

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdplatform import cli
from kdplatform.data import dataset_config_class, dataset_names
from kdplatform.methods import method_config_classes, method_names
from kdplatform.settings.fields import describe_fields
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import (
    AugmentationConfig,
    ConditionConfig,
    DatasetConfig,
    DistillationConfig,
    EvaluationConfig,
    ProjectConfig,
    TrainingConfig,
    TuningConfig,
)
from kdplatform.settings.words import allowed, plain_text

_FIELDS = ("field", "takes", "default", "meaning")


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    escaped = (map(_escaped, line) for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def _escaped(cell: str) -> str:
    cell = cell.replace("|", "\\|")
    # Markdown escapes what is in code by itself.
    return cell if cell.startswith("`") else cell.replace("<", "&lt;")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return f"`{plain_text(value)}`" if plain_text(value) else "empty"


def _rows(
    section: type[BaseModel], prefix: str, without: Iterable[str] = ()
) -> Iterator[list[str]]:
    hidden = set(without)
    for name, field in section.model_fields.items():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        if name not in hidden and not nested:
            yield [
                f"`{prefix}{name}`",
                allowed(field),
                _default(field),
                field.description or "",
            ]


def _section(title: str, section: type[BaseModel], prefix: str, without: Iterable[str] = ()) -> str:
    rows = list(_rows(section, prefix, without))
    body = _table(_FIELDS, rows) if rows else "No fields of its own."
    return f"{title}\n\n{body}\n"


def configuration() -> str:
    """Returns the page of all fields of a project file, in Markdown."""
    parts = [
        "# Configuration",
        "This page lists every field of a project file. A command sets a field by its dotted name: "
        "`--student.epochs 3`, or `-P student.epochs=3` with MLflow. The page is generated from "
        "the code.",
        _section("## Project", ProjectConfig, ""),
        _section("## Dataset", DatasetConfig, "dataset."),
    ]
    common = set(DatasetConfig.model_fields)
    for name in dataset_names():
        config = dataset_config_class(name)
        parts.append(_section(f"### Dataset `{name}`", config, "dataset.", common))
    parts += [
        _section("## Teacher and student", TrainingConfig, "student."),
        "A teacher has the same fields: `teacher.epochs`.",
        _section("### Augmentation", AugmentationConfig, "student.augmentation."),
        _section("## Distillation", DistillationConfig, "distillation."),
    ]
    common = set(DistillationConfig.model_fields) - {"method"}
    for name in method_names():
        for distils, config in method_config_classes(name).items():
            prefix = "distillation." if distils else "student.method."
            kind = "" if distils else ", without a teacher"
            parts.append(
                _section(f"### Method `{name}`{kind}", config, prefix, {*common, "method"})
            )
    parts += [
        _section("## Evaluation", EvaluationConfig, "evaluation."),
        _section("### A condition", ConditionConfig, "evaluation.conditions.NAME."),
        _section("## Tuning", TuningConfig, "tuning."),
    ]
    return "\n\n".join(parts)


def commands() -> str:
    """Returns the page of all commands and their parameters, in Markdown."""
    parts = [
        "# Commands",
        "This page lists every command and its parameters. `kdplatform COMMAND --name value` and "
        "`mlflow run . -e COMMAND -P name=value` do the same. The page is generated from the code.",
    ]
    context = click.Context(cli.commands, info_name="kdplatform")
    parts += _commands(cli.commands, context, "kdplatform")
    return "\n\n".join(parts)


def _commands(group: click.Group, context: click.Context, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        words = f"{path} {name}"
        own = click.Context(command, parent=context, info_name=name)
        yield f"## `{words}`\n\n{cleandoc(command.help or '')}"
        if isinstance(command, click.Group):
            yield from _commands(command, own, words)
        elif isinstance(command, cli.EntryPoint):
            yield _table(("parameter", "default", "takes", "meaning"), _entry_rows(command))
        elif rows := [row for p in command.params if (row := p.get_help_record(own))]:
            yield _table(("parameter", "meaning"), ([f"`{a}`", b] for a, b in rows))


def _entry_rows(command: cli.EntryPoint) -> Iterator[list[str]]:
    fields = {field.name: field for field in describe_fields(load_project("trifeature"))}
    for parameter in cli.ENTRY_POINTS[str(command.name)]:
        field = parameter.field or (cli.SHORTCUTS | cli.TUNING_SHORTCUTS).get(
            parameter.name, parameter.name
        )
        said = fields.get(field, parameter) if parameter.default == cli.FROM_PROJECT else parameter
        default = "the project's" if parameter.default == cli.FROM_PROJECT else parameter.default
        # The field of a method takes the name of its own class alone.
        takes = "a name of the methods" if field == "distillation.method" else said.allowed
        yield [f"`{parameter.name}`", f"`{default}`", takes, said.description]
