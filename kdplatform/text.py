"""Makes the user's text safe to show: names of classes, groups, files and studies."""

import re


def visible(text: object) -> str:
    r"""Returns a text on one line without hidden characters and terminal commands.

    Characters that do not print are written as in Python: `\n` for the end of a line, `\x1b` for
    the start of a terminal's command, `\u202e` for a character that reverses the text after it.

    >>> visible("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def visible_lines(text: str) -> str:
    """Returns a text of several lines, each made `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def as_typed(note: str) -> str:
    """Returns a note of an analysis with its parameter as it is typed on the command line."""
    return note.replace("min_group_size=1 counts", "--min_group_size 1 counts")


def as_in_python(note: str) -> str:
    """Returns a note of `compare` with its parameters as they are named in Python.

    >>> as_in_python("--min_group_size 1 counts them; --attributes names columns")
    'min_group_size=1 counts them; attributes names columns'
    """
    names = "attributes|similar_by|positive|min_group_size|min_group_share"
    return re.sub(rf"--({names})\b", r"\1", re.sub(rf"--({names}) (\d)", r"\1=\2", note))


def without_formula(text: str) -> str:
    """Returns a text for the cell of a spreadsheet. A formula gets an apostrophe in front.

    Excel and LibreOffice evaluate a cell that begins with one of these characters. A number stays.

    >>> [without_formula(text) for text in ("=1+1", "-2+3", "-2", "red")]
    ["'=1+1", "'-2+3", '-2', 'red']
    """
    is_number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|-", text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not is_number else text
