import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdplatform.errors import UserError
from kdplatform.registry import Registry

Files = Callable[..., Registry[str]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Makes a registry of a package with these modules, `thing_of_...` being its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(**modules: str) -> Registry[str]:
        package = tmp_path / f"things_of_{tmp_path.name}"
        package.mkdir()
        (package / "__init__.py").write_text(
            "from kdplatform.registry import Registry\n"
            "things = Registry('thing', __name__)\n"
            "register_thing = things.register\n"
        )
        for name, text in modules.items():
            head = f"from {package.name} import register_thing\n"
            (package / f"{name}.py").write_text(head + text)
        registry: Registry[str] = __import__(package.name).things
        return registry

    return made


DEFINED = "@register_thing({})\ndef build():\n    return '{}'\n"


def test_names_are_sorted(files: Files) -> None:
    registry = files(one=DEFINED.format("'b', 'a'", 1), two=DEFINED.format("'aa'", 2))
    assert registry.names() == ("a", "aa", "b")


def test_the_module_of_a_name_is_imported_when_it_is_asked_for(files: Files) -> None:
    registry = files(one=DEFINED.format("'b', 'a'", 1), two="raise RuntimeError\n")
    package = registry._package
    assert registry.names() == ("a", "b")
    assert f"{package}.one" not in sys.modules
    assert registry.get("b")() == "1"


def test_calls_inside_functions_register_nothing(files: Files) -> None:
    inside = "def helper(name):\n    register_thing(name)\n"
    assert files(one=inside, two=DEFINED.format("'a'", 2)).names() == ("a",)


def test_unknown_name_names_the_parameter_and_the_nearest(files: Files) -> None:
    registry = files(one=DEFINED.format("'beta', 'alpha'", 1))
    with pytest.raises(UserError, match=r"thing='alfa' does not exist; did you mean 'alpha'"):
        registry.get("alfa")


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ("'a'", "'b', 'a'", r"^thing 'a' is registered twice, in '.*/one\.py' and '.*/two\.py'"),
        ("'a', 'a'", "'b'", r"^thing 'a' is registered twice, in '.*/one\.py' and '.*/one\.py'"),
        ("'a'", "*NAMES", r"/two\.py', line 2: register_thing takes names as string literals"),
        ("'a'", "f'b'", r"/two\.py', line 2: register_thing takes names as string literals"),
        ("'a'", "'b'  '", r"/two\.py', line 2: unterminated string literal"),
    ],
)
def test_a_file_whose_names_cannot_be_taken_is_named(
    files: Files, one: str, two: str, message: str
) -> None:
    registry = files(one=DEFINED.format(one, 1), two=DEFINED.format(two, 2))
    with pytest.raises(UserError, match=message) as caught:
        registry.names()
    assert "\n" not in str(caught.value)


def test_a_name_is_taken_once_by_running_code_too(files: Files) -> None:
    registry = files(one=DEFINED.format("'a'", 1))
    assert registry.register("b")("x") == registry.get("b") == "x"
    with pytest.raises(UserError, match="thing 'b' is registered twice"):
        registry.register("b")("y")


def test_names_of_models_are_known_without_a_slow_library() -> None:
    code = (
        "import sys\n"
        "from kdplatform.models import model_names\n"
        "from kdplatform.models.pretrained import pretrained_names\n"
        "from kdplatform.models.user_models import is_user_model\n"
        "assert set(pretrained_names()) < set(model_names()) and is_user_model('a:b')\n"
        "print(*{'torch', 'pandas', 'torchvision', 'mlflow', 'sklearn', 'scipy'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == []
