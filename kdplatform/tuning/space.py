"""The search space: what a point is, how Optuna draws one, and its configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from optuna.trial import Trial

from kdplatform.roles import Role
from kdplatform.settings.methods import with_method
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.study import Arm
from kdplatform.tuning.dimensions import (
    Dimension,
    dimensions,
    searched_methods,
    with_fields,
    within,
)

_RATE_DIGITS = 2


@dataclass(frozen=True)
class Point:
    """One setting of distillation. Equal points share their runs.

    Attributes:
        fields: name and value of each varied field of the method.
    """

    method: str
    fields: tuple[tuple[str, float], ...]
    learning_rate: float
    epochs: int

    @classmethod
    def of(cls, project: ProjectConfig, method: str = "", temperature: float | None = None) -> Self:
        """Returns the point of a project's configuration.

        Args:
            method: another method, at its own defaults.
            temperature: another T; ignored by a method without one.
        """
        config = with_method(project, method or project.distillation.method)
        own = {d.field: getattr(config, d.field) for d in dimensions(project, config.method)}
        if temperature is not None and config.temperature_field is not None:
            own[config.temperature_field] = temperature
        student = project.student
        return cls(config.method, tuple(own.items()), student.learning_rate, student.epochs)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Returns the point that `as_dict` wrote."""
        own = {name: value for name, value in values.items() if name not in _OF_EVERY_POINT}
        return cls(fields=tuple(own.items()), **{name: values[name] for name in _OF_EVERY_POINT})

    def as_dict(self) -> dict[str, Any]:
        """Returns the point as plain values."""
        return {**dict(self.fields), **{name: getattr(self, name) for name in _OF_EVERY_POINT}}

    @property
    def arm(self) -> Arm:
        """The arm of its students, whose settings are the varied fields."""
        settings = {name: value for name, value in self.as_dict().items() if name != "method"}
        return Arm(Role.DISTILLED, self.method, tuple(settings.items()))

    def config(self, project: ProjectConfig) -> ProjectConfig:
        """Returns the project's configuration at this point."""
        distillation = with_fields(with_method(project, self.method), dict(self.fields))
        student = project.student.model_copy(
            update={"learning_rate": self.learning_rate, "epochs": self.epochs}
        )
        return project.model_copy(update={"distillation": distillation, "student": student})

    def title(self, project: ProjectConfig) -> str:
        """Describes the point: the method if there are others, and the fields that differ."""
        student = project.student
        parts = [f"{_SHORT.get(name, name)}={value:g}" for name, value in self.fields]
        if not parts or {*searched_methods(project), self.method} != {project.distillation.method}:
            parts.insert(0, self.method)
        if self.learning_rate != student.learning_rate:
            parts.append(f"rate={self.learning_rate:g}")
        if self.epochs != student.epochs:
            parts.append(f"epochs={self.epochs}")
        return " ".join(parts)


# The fields of a point that do not depend on its method.
_OF_EVERY_POINT = ("method", "learning_rate", "epochs")
_SHORT = {"temperature": "T"}


def draw(trial: Trial, project: ProjectConfig) -> Point:
    """Returns the point that Optuna suggests, rounded: the method, then its fields."""
    space, own = project.tuning, Point.of(project)
    method, rate, epochs = own.method, own.learning_rate, own.epochs
    if space.methods:
        method = trial.suggest_categorical("method", space.methods)
    fields = [
        (dimension.field, dimension.rounded(_suggested(trial, name, dimension)))
        for name, dimension in _parameters(project, method)
    ]
    if space.learning_rate is not None:
        rate = trial.suggest_float("learning_rate", *space.learning_rate, log=True)
        rate = within(float(f"{rate:.{_RATE_DIGITS}g}"), *space.learning_rate)
    if space.epochs is not None:
        epochs = trial.suggest_int("epochs", *space.epochs, log=True)
    return Point(method, tuple(fields), rate, epochs)


def _suggested(trial: Trial, name: str, dimension: Dimension) -> float:
    if dimension.integer:
        low, high = int(dimension.low), int(dimension.high)
        return trial.suggest_int(name, low, high, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def _parameters(project: ProjectConfig, method: str) -> Iterator[tuple[str, Dimension]]:
    """Returns the dimensions of a method by their names in Optuna.

    Each of several methods has its own dimensions: a T that suits one need not suit another.
    """
    several = len(searched_methods(project)) > 1
    for dimension in dimensions(project, method):
        yield f"{method}.{dimension.field}" if several else dimension.field, dimension


def first_points(project: ProjectConfig) -> list[Point]:
    """Returns the first points to try, if they are inside the space.

    They are the project's own point and its temperatures, and every other method at its defaults.
    """
    temperatures = [Point.of(project, temperature=t) for t in project.temperatures]
    others = [Point.of(project, method) for method in searched_methods(project)]
    points = dict.fromkeys([Point.of(project), *others, *temperatures])
    return [point for point in points if _inside(point, project)]


def _inside(point: Point, project: ProjectConfig) -> bool:
    space, values = project.tuning, dict(point.fields)
    return (
        point.method in searched_methods(project)
        and all(d.low <= values[d.field] <= d.high for d in dimensions(project, point.method))
        and (space.learning_rate is None or _between(point.learning_rate, space.learning_rate))
        and (space.epochs is None or _between(point.epochs, space.epochs))
    )


def _between(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def parameters(point: Point, project: ProjectConfig) -> dict[str, Any]:
    """Returns a point as the parameters that `draw` would get for it."""
    space, values = project.tuning, point.as_dict()
    searched = {"method": bool(space.methods)}
    searched |= {"learning_rate": space.learning_rate is not None}
    searched |= {"epochs": space.epochs is not None}
    return {
        **{name: values[d.field] for name, d in _parameters(project, point.method)},
        **{name: values[name] for name, is_searched in searched.items() if is_searched},
    }
