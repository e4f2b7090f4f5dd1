"""Methods that build on another one: which it may be, its fields, and the run as it sees it."""

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
    """What the fields of a method that builds on another one have in common.

    `base_name` and `base_settings` are the names of the fields that say which it is, and which of
    its fields have other values than its defaults.
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
        """Returns the fields that decide a result, those of the base as its own key has them."""
        settings = super().matters()
        del settings[self.base_settings]
        return settings | {self.base_name: self.base_config.matters()}

    def check_base(self, known: Sequence[str], kind: str, taken: Sequence[str] = ()) -> None:
        """Checks that the base is one that is known, and that it has the fields that are given.

        Args:
            kind: the allowed methods in words, as "a method that ..." or "no method whose ...".
            taken: its fields that have no meaning here.

        Raises:
            ValueError: it is not, or a field is none of its own or has no allowed value.
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
            ValueError: it is not this method's default, and the base has none.
        """
        name = getattr(self, self.base_name)
        default = type(self).model_fields["temperature"].default
        if method_config_class(name).temperature_field is None and temperature != default:
            raise ValueError(
                f"temperature={temperature:g} is not allowed with {self.base_name}={name!r}, which "
                f"has no temperature of this kind; allowed: {default:g}, the default"
            )


def methods_of_logits() -> list[str]:
    """Returns the names of the methods whose loss is one of two tables of logits, and labels."""
    return [name for name in method_names() if issubclass(method_class(name), LogitMethod)]


class SeenRun:
    """A run as the method within sees it: some of what it asks is answered differently.

    Args:
        run: the run, which gives all other attributes.
        answers: by name, what replaces the run's own attributes.
    """

    def __init__(self, run: Run, **answers: object) -> None:
        self.__dict__.update(answers)
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)
