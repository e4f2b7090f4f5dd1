"""Methods that build on a base method: the allowed bases, their fields, and the run they see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from kdplatform.methods import method_class, method_config_class, method_names
from kdplatform.methods._logits import LogitMethod
from kdplatform.settings.schema import DistillationConfig, MethodConfig
from kdplatform.settings.words import allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdplatform.methods import Run


class BuildingConfig(MethodConfig):
    """The common fields of methods that build on another one, the base.

    `base_name` is the name of the field that chooses the base. `base_settings` is the name of the
    field with the base's settings that differ from its defaults.
    """

    base_name: ClassVar[str] = "base"
    base_settings: ClassVar[str] = "base_fields"

    def fixed(self, own: type[MethodConfig]) -> Mapping[str, Any]:
        """Returns the fields of the base that this method's own fields replace."""
        return {}

    @property
    def softmax_temperature(self) -> float | None:
        """The base's T; None if the base has none."""
        has_one = method_config_class(getattr(self, self.base_name)).temperature_field is not None
        return super().softmax_temperature if has_one else None

    @property
    def base_config(self) -> MethodConfig:
        """The base with its fields."""
        own = method_config_class(getattr(self, self.base_name))
        given = dict(field.split("=", 1) for field in getattr(self, self.base_settings))
        return own.model_validate(given | dict(self.fixed(own)))

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result, with those of the base as in its own key."""
        settings = super().matters()
        del settings[self.base_settings]
        return settings | {self.base_name: self.base_config.matters()}

    def check_base(self, known: Sequence[str], kind: str, taken: Sequence[str] = ()) -> None:
        """Checks that the base is allowed, and that it has the given fields.

        Args:
            kind: the allowed methods in words, as "a method that ..." or "no method whose ...".
            taken: its fields that have no meaning here.

        Raises:
            ValueError: the base is not allowed, lacks a given field, or a field has a value that is
                not allowed.
        """
        name = getattr(self, self.base_name)
        if name not in known:
            raise ValueError(f"{self.base_name}={name!r} is {kind}; allowed: {', '.join(known)}")
        own = method_config_class(name)
        not_free = {*DistillationConfig.model_fields, *taken, *self.fixed(own)}
        free = [field for field in own.model_fields if field not in not_free]
        for field in getattr(self, self.base_settings):
            given, equals, _ = field.partition("=")
            if given not in free or not equals:
                raise ValueError(
                    f"{self.base_settings}={field!r} is not allowed with "
                    f"{self.base_name}={name!r}; allowed: name=value, names: "
                    f"{', '.join(free) or 'none'}"
                )

    def check_base_fields(self) -> None:
        """Checks that the base can be built with its fields.

        Raises:
            ValueError: it cannot; names the field.
        """
        own = method_config_class(getattr(self, self.base_name))
        try:
            self.base_config  # noqa: B018 - builds it, to see that it can be built
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            words = f"; allowed: {allowed(own.model_fields[name])}" if name else ""
            value = f" {name}={problem['input']!r} is not allowed" if name else problem["msg"]
            raise ValueError(f"{self.base_settings}:{value}{words}") from None

    def check_temperature(self, temperature: float) -> None:
        """Checks that a temperature is given only for a base that has one.

        Raises:
            ValueError: the temperature is not this method's default, and the base has no
                temperature.
        """
        name = getattr(self, self.base_name)
        default = type(self).model_fields["temperature"].default
        if method_config_class(name).temperature_field is None and temperature != default:
            raise ValueError(
                f"temperature={temperature:g} is not allowed with {self.base_name}={name!r}, which "
                f"has no temperature of this kind; allowed: {default:g}, the default"
            )


def methods_of_logits() -> list[str]:
    """Returns the names of the methods whose loss needs only two tables of logits, and labels."""
    return [name for name in method_names() if issubclass(method_class(name), LogitMethod)]


class SeenRun:
    """A run as the base method sees it: some attributes of the run are replaced.

    Args:
        run: the run, which gives all other attributes.
        answers: the replacements of the run's attributes, by name.
    """

    def __init__(self, run: Run, **answers: object) -> None:
        self.__dict__.update(answers)
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)
