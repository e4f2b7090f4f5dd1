"""How a test asks for an error that its user caused, and sees that it is one line."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from kdplatform import cli
from kdplatform.errors import UserError


def refusal_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """Returns the one line with which a call refuses its arguments."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def assert_refused(
    call: Callable[..., Any], subject: Any, message: str, *arguments: Any, **named: Any
) -> None:
    """Asserts that `call(subject, ...)` is refused with a line that the pattern matches."""
    line = refusal_of(call, subject, *arguments, **named)
    assert re.search(message, line), line


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Returns exit code and message of a command that says one line on stderr and nothing else."""
    code = cli.main(words)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("kdplatform: ")
    return code, line.removeprefix("kdplatform: ")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the last line that a failed command said, which printed no table and no trace."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1].removeprefix("kdplatform: ")
