import doctest
import importlib
import pkgutil

import pytest

import kdplatform.analysis

MODULES = [module.name for module in pkgutil.iter_modules(kdplatform.analysis.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module(f"kdplatform.analysis.{name}")
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_modules_have_examples():
    attempted = sum(
        doctest.testmod(importlib.import_module(f"kdplatform.analysis.{name}")).attempted
        for name in MODULES
    )
    assert attempted >= 20
