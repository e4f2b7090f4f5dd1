import pytest

from kdplatform.cli import main
from kdplatform.kernels.backend import _Loaded
from kdplatform.kernels.toolchain import CUDA_ARCHITECTURES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "known: build, status"),
        (["biuld"], "did you mean 'build'"),
        (["build", "--coda"], "--coda"),
        (["status", "now"], "now"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_status_says_why_pytorch_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDPLATFORM_KERNELS", "off")
    monkeypatch.setattr("kdplatform.kernels.backend.loaded", _Loaded())  # a fresh process
    assert main(["kernels", "status"]) == 0
    said = capsys.readouterr().out
    assert "PyTorch: KDPLATFORM_KERNELS=off" in said
    # The glossary has the word for the model that is compared with.
    assert "reference" not in said


def test_help_says_which_architectures_are_built_without_the_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["kernels", "build", "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "$KDPLATFORM_CUDA_ARCHITECTURES,else" in said
    assert ",".join(CUDA_ARCHITECTURES) in said
    assert "devices" not in said


def test_an_unknown_mode_is_the_users_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDPLATFORM_KERNELS", "of")
    assert main(["kernels", "status"]) == 2
    assert "KDPLATFORM_KERNELS" in capsys.readouterr().err


def test_a_build_without_a_compiler_is_the_machines_error(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("KDPLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["kernels", "build"]) == 1
    assert "no-such-compiler" in capsys.readouterr().err
