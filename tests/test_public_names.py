"""What a program finds in the package: names that are listed, and load when they are asked for."""

import doctest
import subprocess
import sys

import pytest

import kdplatform
import kdplatform.analysis


@pytest.mark.parametrize("package", [kdplatform, kdplatform.analysis])
def test_every_public_name_is_there_and_documented(package: object) -> None:
    names = dir(package)
    assert len(names) >= 8
    for name in names:
        value = getattr(package, name)
        assert value == getattr(package, name)
        if name != "__version__":
            assert value.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fairnes'"):
        kdplatform.analysis.fairnes  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'comparison'"):
        kdplatform.comparison  # noqa: B018


def test_nothing_slow_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, kdplatform, kdplatform.analysis\n"
        "dir(kdplatform), dir(kdplatform.analysis)\n"
        "slow = {'torch', 'pandas', 'numpy', 'mlflow', 'scipy'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "kdplatform.analysis.holm([0.1])\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_of_statistics_shows_how_it_is_used() -> None:
    assert doctest.testmod(kdplatform.analysis).attempted >= 2
