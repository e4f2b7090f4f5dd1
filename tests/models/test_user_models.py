import sys
from pathlib import Path

import pytest
import torch
from helpers.facts import image_facts
from helpers.refusals import refusal_of

from kdplatform.errors import UserError
from kdplatform.models.user_models import (
    by_content,
    is_user_model,
    user_model,
    user_model_digest,
    with_absolute_file,
)

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
    ("name", "own"),
    [
        ("a:b", True),
        ("/x y/a.py:b", True),
        ("a.py:", False),
        ("a.b_c:D1", True),
        ("resnet20", False),
        ("a:", False),
    ],
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


def test_a_file_is_named_by_its_path_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sibling.py").write_text("classes = 5\n")
    source = SOURCE + "\nimport sibling\n"
    (folder / "torch.py").write_text(source)  # its name is not looked for among modules
    name = f"{folder}/torch.py:linear"
    assert user_model(name, image_facts(2, 4, 7))(torch.zeros(3, 2, 4, 4)).shape == (3, 7)
    assert by_content(name) == "torch:linear"
    monkeypatch.chdir(folder)
    assert with_absolute_file("torch.py:linear") == name
    assert with_absolute_file("torch:linear") == "torch:linear"


def test_a_file_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    line = refusal_of(user_model, "no.py:linear", image_facts(2, 4, 7))
    assert line.startswith(f"model='no.py:linear' is no file (looked at '{tmp_path}/no.py'); ")
    assert "/folder/mine.py:function" in line


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    before = user_model_digest("own_models_for_tests:linear")
    with (tmp_path / "own_models_for_tests.py").open("a") as file:
        file.write("# changed\n")
    assert user_model_digest("own_models_for_tests:linear") != before


def test_the_digest_of_a_compiled_function_is_of_its_name() -> None:
    assert user_model_digest("os:getcwd") == user_model_digest("os:getcwd")
    assert user_model_digest("os:getcwd") != user_model_digest("os:getpid")
