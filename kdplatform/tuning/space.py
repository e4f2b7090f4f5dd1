"""The search space: what a point is, how Optuna draws one, which configuration it stands for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from optuna.trial import Trial

from kdplatform.roles import Role
from kdplatform.settings.project import with_method
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.study import Arm

# Neighbours this near give the same student but for chance: they are one point, trained once.
_TEMPERATURE_DIGITS = 3
_RATE_DIGITS = 2
_ALPHA_STEP = 0.01


@dataclass(frozen=True)
class Point:
    """One way to distil; equal points are the same runs."""

    temperature: float
    alpha: float
    method: str
    learning_rate: float
    epochs: int

    @classmethod
    def of(cls, config: ProjectConfig, temperature: float | None = None) -> Self:
        """Returns the point a project's configuration stands at, or that with another T."""
        distillation = config.distillation
        return cls(
            (distillation.softmax_temperature or 1.0) if temperature is None else temperature,
            0.0 if (weight := distillation.distillation_weight) is None else weight,
            distillation.method,
            config.student.learning_rate,
            config.student.epochs,
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Returns the point that `as_dict` wrote."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Returns the point as plain values."""
        return asdict(self)

    @property
    def arm(self) -> Arm:
        """The arm of its students: their settings are what points vary."""
        settings = {name: value for name, value in asdict(self).items() if name != "method"}
        return Arm(Role.DISTILLED, self.method, tuple(settings.items()))

    def config(self, project: ProjectConfig) -> ProjectConfig:
        """Returns the project's configuration at this point."""
        method = with_method(project, self.method)
        own = {"temperature": method.temperature_field, "alpha": method.alpha_field}
        values = {"temperature": self.temperature, "alpha": self.alpha}
        distillation = method.at(**{name: values[name] for name in own if own[name] is not None})
        student = project.student.model_copy(
            update={"learning_rate": self.learning_rate, "epochs": self.epochs}
        )
        return project.model_copy(update={"distillation": distillation, "student": student})

    def title(self, project: ProjectConfig) -> str:
        """Says where the point is, as far as that differs from the project."""
        own = Point.of(project)
        parts = [f"T={self.temperature:g}", f"alpha={self.alpha:g}"]
        if self.method != own.method:
            parts.append(self.method)
        if self.learning_rate != own.learning_rate:
            parts.append(f"rate={self.learning_rate:g}")
        if self.epochs != own.epochs:
            parts.append(f"epochs={self.epochs}")
        return " ".join(parts)


def draw(trial: Trial, project: ProjectConfig) -> Point:
    """Returns the point that Optuna suggests, rounded."""
    space, own = project.tuning, Point.of(project)
    temperature = trial.suggest_float("temperature", *space.temperature, log=True)
    alpha = trial.suggest_float("alpha", *space.alpha)
    method, rate, epochs = own.method, own.learning_rate, own.epochs
    if space.methods:
        method = trial.suggest_categorical("method", space.methods)
    if space.learning_rate is not None:
        rate = trial.suggest_float("learning_rate", *space.learning_rate, log=True)
        rate = _rounded(rate, space.learning_rate, _RATE_DIGITS)
    if space.epochs is not None:
        epochs = trial.suggest_int("epochs", *space.epochs, log=True)
    return Point(
        _rounded(temperature, space.temperature, _TEMPERATURE_DIGITS),
        _between(round(alpha / _ALPHA_STEP) * _ALPHA_STEP, space.alpha),
        method,
        rate,
        epochs,
    )


def _rounded(value: float, limits: tuple[float, float], digits: int) -> float:
    """Returns a value with so many significant digits, inside its range."""
    return _between(float(f"{value:.{digits}g}"), limits)


def _between(value: float, limits: tuple[float, float]) -> float:
    # Ten decimals: 0.29 and not 0.29000000000000004, which would be another key.
    return round(min(max(value, limits[0]), limits[1]), 10)


def first_points(project: ProjectConfig) -> list[Point]:
    """Returns what is tried first: the project's own point and its temperatures, in the space."""
    own = Point.of(project)
    points = [own, *(Point.of(project, temperature) for temperature in project.temperatures)]
    return [point for point in dict.fromkeys(points) if _inside(point, project)]


def _inside(point: Point, project: ProjectConfig) -> bool:
    space = project.tuning
    return (
        space.temperature[0] <= point.temperature <= space.temperature[1]
        and space.alpha[0] <= point.alpha <= space.alpha[1]
        and (not space.methods or point.method in space.methods)
        and (space.learning_rate is None or _within(point.learning_rate, space.learning_rate))
        and (space.epochs is None or _within(point.epochs, space.epochs))
    )


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def parameters(point: Point, project: ProjectConfig) -> dict[str, Any]:
    """Returns a point as the parameters that `draw` would be given for it."""
    space, values = project.tuning, point.as_dict()
    searched = {"temperature": True, "alpha": True, "method": bool(space.methods)}
    searched |= {"learning_rate": space.learning_rate is not None}
    searched |= {"epochs": space.epochs is not None}
    return {name: values[name] for name, is_searched in searched.items() if is_searched}
