import sys
from pathlib import Path

import pytest
import torch
from helpers.facts import image_facts

from kdplatform.errors import UserError
from kdplatform.models.user_models import is_user_model, user_model, user_model_digest

SOURCE = """\
from torch import nn

def linear(data):
    return nn.Sequential(nn.Flatten(), nn.Linear(data.input_shape[0] * 16, data.num_classes))

def wrong(data):
    return 3

def failing(data):
    raise KeyError("secret")

constant = 1
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models_for_tests.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models_for_tests", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "own"), [("a:b", True), ("a.b_c:D1", True), ("resnet20", False), ("a:", False)]
)
def test_names_of_functions(name: str, own: bool) -> None:
    assert is_user_model(name) is own


def test_the_function_gets_the_datas_facts() -> None:
    model = user_model("own_models_for_tests:linear", image_facts(2, 4, 7))
    assert model(torch.zeros(3, 2, 4, 4)).shape == (3, 7)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "returned a int; allowed: a torch.nn.Module"),
        ("failing", "failed: KeyError: 'secret'"),
        ("absent", r"cannot be imported \(AttributeError"),
        ("constant", "is no function"),
    ],
)
def test_what_is_no_model_is_refused(function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        user_model(f"own_models_for_tests:{function}", image_facts(2, 4, 7))


def test_a_module_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"cannot be imported \(ModuleNotFoundError"):
        user_model("no_such_module_anywhere:linear", image_facts(2, 4, 7))


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    before = user_model_digest("own_models_for_tests:linear")
    with (tmp_path / "own_models_for_tests.py").open("a") as file:
        file.write("# changed\n")
    assert user_model_digest("own_models_for_tests:linear") != before


def test_the_digest_of_a_compiled_function_is_of_its_name() -> None:
    assert user_model_digest("os:getcwd") == user_model_digest("os:getcwd")
    assert user_model_digest("os:getcwd") != user_model_digest("os:getpid")
