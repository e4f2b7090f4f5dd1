import pytest

from kdplatform.cli import main
from kdplatform.kernels.backend import _Loaded


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


def test_status_says_why_the_reference_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDPLATFORM_KERNELS", "off")
    monkeypatch.setattr("kdplatform.kernels.backend.loaded", _Loaded())  # a fresh process
    assert main(["kernels", "status"]) == 0
    assert "reference: KDPLATFORM_KERNELS=off" in capsys.readouterr().out


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
