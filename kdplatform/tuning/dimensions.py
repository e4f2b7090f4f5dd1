"""The fields of methods that a search varies, and their ranges."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor, log10

from pydantic import ValidationError

from kdplatform.errors import UserError, unknown_name
from kdplatform.methods import method_config_classes, method_names
from kdplatform.settings.methods import with_method
from kdplatform.settings.schema import DistillationConfig, MethodConfig, ProjectConfig
from kdplatform.settings.teacher_entries import teacher_entries
from kdplatform.settings.words import allowed

# Points this near differ only by chance. They are one point, trained once.
_DIGITS = 3
_ALPHA_DECIMALS = 2
_BLOCK = "distillation."


@dataclass(frozen=True)
class Dimension:
    """A field of a method, and the range in which it is searched.

    Attributes:
        field: its name in the method's configuration.
        source: the setting that gives the range, for messages.
        decimals: of a rounded value; None on a log scale, which has three significant digits.
    """

    field: str
    source: str
    low: float
    high: float
    log: bool
    integer: bool
    decimals: int | None

    def rounded(self, value: float) -> float:
        """Returns a value in the form that points have: rounded, and inside the range."""
        if self.integer:
            return int(value)
        if self.decimals is None:
            return within(float(f"{value:.{_DIGITS}g}"), self.low, self.high)
        return within(round(value, self.decimals), self.low, self.high)


def within(value: float, low: float, high: float) -> float:
    """Returns the value of a range that is nearest to a value."""
    # Ten decimals: 0.29 instead of 0.29000000000000004, which would be another key.
    return round(min(max(value, low), high), 10)


def searched_methods(project: ProjectConfig) -> tuple[str, ...]:
    """Returns the methods that the search chooses from: at least one."""
    return project.tuning.methods or (project.distillation.method,)


def dimensions(project: ProjectConfig, method: str) -> tuple[Dimension, ...]:
    """Returns the fields of a method that the search varies: T, alpha, those of `tuning.space`.

    A method without a temperature or an alpha has no such dimension, even if another of its fields
    has that name.
    """
    return tuple(_dimensions(project, type(with_method(project, method))))


def _dimensions(project: ProjectConfig, own: type[MethodConfig]) -> Iterator[Dimension]:
    tuning = project.tuning
    if own.temperature_field is not None:
        ends = tuning.temperature
        yield Dimension(own.temperature_field, "tuning.temperature", *ends, True, False, None)
    if own.alpha_field is not None:
        yield Dimension(
            own.alpha_field, "tuning.alpha", *tuning.alpha, False, False, _ALPHA_DECIMALS
        )
    for name, (low, high, scale) in tuning.space.items():
        field = name.removeprefix(_BLOCK)
        if field in _free_numbers(own):
            log = scale == "log"
            integer = own.model_fields[field].annotation is int
            decimals = None if log else _DIGITS - 1 - floor(log10(high - low or 1))
            yield Dimension(field, f"tuning.space: {name}", low, high, log, integer, decimals)


def _free_numbers(own: type[MethodConfig]) -> list[str]:
    """Returns a method's numeric fields without T and alpha, which have their own ranges."""
    taken = {own.temperature_field, own.alpha_field}
    return [
        name
        for name, field in own.model_fields.items()
        if field.annotation in (int, float) and name not in taken
    ]


# ---- checks, before anything is trained


def check_search(project: ProjectConfig) -> None:
    """Checks that there is something to search, and that every range is possible.

    Raises:
        UserError: `tuning.space` names a field that no method of the search has, a range exceeds
            that of its field, or nothing is searched.
    """
    _check_teachers(project)
    tuning, names = project.tuning, searched_methods(project)
    configs = {name: with_method(project, name) for name in names}
    for name in tuning.space:
        _check_field(name, configs)
    found = {name: dimensions(project, name) for name in names}
    for name, own in found.items():
        for dimension in own:
            _check_range(configs[name], dimension)
    training = tuning.learning_rate or tuning.epochs
    if len(names) == 1 and not found[names[0]] and training is None:
        numbers = _free_numbers(type(configs[names[0]]))
        where = f"tuning.space with {_listed(numbers)}, " if numbers else ""
        raise UserError(
            f"method={names[0]!r} has no temperature and no alpha, so tune has nothing to search; "
            f"allowed: {where}tuning.learning_rate, tuning.epochs, or several methods"
        )


def _check_teachers(project: ProjectConfig) -> None:
    """Refuses teachers that a search does not compare its points with."""
    if project.teacher.logits:
        raise UserError(
            "teacher.logits is not for tune; allowed: a teacher that is a network, or sweep"
        )
    own = project.distillation
    if len(teacher_entries(own.teachers)) > 1 or own.reference_teacher is not None:
        raise UserError(
            f"distillation.teachers={','.join(own.teachers)!r} is not for tune, which compares "
            "each point with one teacher; allowed: one teacher, or sweep"
        )


def _listed(fields: list[str]) -> str:
    return " or ".join(_BLOCK + field for field in fields)


def _check_field(name: str, configs: Mapping[str, DistillationConfig]) -> None:
    """Checks that a method of the search has this field, and that no other range sets it."""
    field, said = name.removeprefix(_BLOCK), f"tuning.space={name!r}"
    if not name.startswith(_BLOCK):
        raise UserError(
            f"{said} is no field of a method; allowed: numeric fields of distillation, such as "
            "distillation.beta"
        )
    kinds = [type(config) for config in configs.values()]
    free = {number for own in kinds for number in _free_numbers(own)}
    if field in free:
        return
    for own in kinds:
        for taken, meant in ((own.temperature_field, "temperature"), (own.alpha_field, "alpha")):
            if field == taken:
                raise UserError(f"{said} is searched already; allowed: its range as tuning.{meant}")
    classes = {n: method_config_classes(n).get(True) for n in method_names()}
    having = [n for n, own in classes.items() if own is not None and field in _free_numbers(own)]
    if having:
        raise UserError(
            f"{said} is no field of method={', '.join(configs)!r}; methods that have it: "
            f"{', '.join(having)}"
        )
    if any(field in own.model_fields for own in kinds):
        numbers = _listed(sorted(free)) or "none"
        raise UserError(f"{said} is no number; allowed: {numbers}")
    raise unknown_name("tuning.space", name, {_BLOCK + number for number in free})


def _check_range(config: DistillationConfig, dimension: Dimension) -> None:
    """Checks that the method takes both ends of a range."""
    for end in (dimension.low, dimension.high):
        try:
            with_fields(config, {dimension.field: end})
        except ValidationError as error:
            [problem, *_] = error.errors()
            words = allowed(type(config).model_fields[dimension.field])
            said = f"{dimension.source}={end:g} is not allowed with method={config.method!r}"
            if problem["type"] == "value_error":
                raise UserError(f"{said}: {problem['msg'].removeprefix('Value error, ')}") from None
            raise UserError(f"{said}; allowed: {words}") from None


def with_fields(config: DistillationConfig, fields: Mapping[str, float]) -> DistillationConfig:
    """Returns a method with other values of its fields, checked.

    Raises:
        ValidationError: the method does not take them.
    """
    return type(config).model_validate(config.model_dump() | dict(fields))
