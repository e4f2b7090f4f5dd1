import io

import pytest

from kdplatform import progress
from kdplatform.progress import changing_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_that_differ_in_numbers_alone_are_printed_once_away_from_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with changing_line() as report:
        for line in ("building: 1 s", "building: 2 s", "built in 2 s"):
            report(line)
    assert capsys.readouterr().err.splitlines() == ["building: 1 s", "built in 2 s"]


def test_a_terminal_shows_the_lines_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with changing_line() as report:
        report("building: 10 s")
        report("built")
    assert terminal.getvalue() == "\rbuilding: 10 s\rbuilt         \n"


def test_epochs_are_said_from_time_to_time_away_from_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines = progress.EpochLines("Teacher resnet20 seed 0", 40)
    for epoch in range(1, 41):
        now += 10
        lines(epoch)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "Teacher resnet20 seed 0: training, 40 epochs",
        "Teacher resnet20 seed 0: epoch 3 of 40",
    ]
    assert len(said) == 1 + 13


def test_a_terminal_and_a_worker_have_no_lines_of_epochs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.collected_messages() as collected:
        progress.EpochLines("NDS", 2)(1)
    assert collected == []
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress.EpochLines("NDS", 2)(1)
    assert terminal.getvalue() + capsys.readouterr().err == ""
