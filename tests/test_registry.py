import pytest

from kdplatform.errors import UserError
from kdplatform.registry import Registry


def filled() -> Registry[int]:
    registry: Registry[int] = Registry("thing", "kdplatform.models")
    registry.register("beta", "alpha")(1)
    return registry


def test_names_are_sorted() -> None:
    assert filled().names() == ("alpha", "beta")


def test_unknown_name_names_the_parameter_and_the_nearest() -> None:
    with pytest.raises(UserError, match=r"thing='alfa' does not exist; did you mean 'alpha'"):
        filled().get("alfa")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="thing 'beta' is registered twice"):
        filled().register("beta")(2)
