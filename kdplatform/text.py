"""Text of the user's as text: names of classes, groups, files and studies in what is shown."""

import re


def visible(text: object) -> str:
    r"""Returns a text on one line in which nothing is hidden and nothing steers a terminal.

    Characters that do not print stand as Python writes them: `\n` for the end of a line, `\x1b` for
    the start of a terminal's command, `\u202e` for what would turn the rest around.

    >>> visible("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def visible_lines(text: str) -> str:
    """Returns a text of several lines, each as `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def without_formula(text: str) -> str:
    """Returns a text as the cell of a spreadsheet: behind an apostrophe where it is a formula.

    Excel and LibreOffice calculate a cell that begins with one of these characters; a number stays.

    >>> [without_formula(text) for text in ("=1+1", "-2+3", "-2", "red")]
    ["'=1+1", "'-2+3", '-2', 'red']
    """
    is_number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|-", text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not is_number else text
