import io

import pytest

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
