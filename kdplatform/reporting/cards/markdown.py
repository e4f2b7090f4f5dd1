"""Common Markdown parts of the cards; a user's text never becomes markup."""

import re
from collections.abc import Iterable, Sequence

from kdplatform.analysis.intervals import Interval
from kdplatform.reporting.cards.facts import NOT_MEASURED, Fact, known
from kdplatform.text import visible


def escaped(text: object) -> str:
    r"""Returns text that Markdown shows unchanged.

    >>> escaped("a|b <script> _x_")
    'a\\|b \\<script\\> \\_x\\_'
    """
    return re.sub(r"[\\`*_\[\]<>|#&~$]", r"\\\g<0>", visible(" ".join(str(text).split())))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Returns the lines of a table, every cell escaped."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    return [*lines, ""]


def points(items: Iterable[object], otherwise: str) -> list[str]:
    """Returns the lines of a list, or its replacement if it is empty."""
    lines = [f"- {escaped(item)}" for item in items]
    return [*(lines or [escaped(otherwise)]), ""]


def number(value: float) -> str:
    """Returns a number with four digits, or that it was not measured."""
    return f"{value:.4g}" if known(value) else NOT_MEASURED


def limits(interval: Interval) -> str:
    """Returns the limits of an interval in words, or words for no limits."""
    if not (known(interval.low) and known(interval.high)):
        return "no interval"
    return f"{interval.low:.4g} to {interval.high:.4g}"


def fact_rows(facts: Iterable[Fact]) -> list[tuple[str, ...]]:
    """Returns a row per metric: value and change with their intervals."""
    return [
        (
            fact.title,
            number(fact.value.estimate),
            limits(fact.value),
            *((number(fact.change.estimate), limits(fact.change)) if fact.better else ("-", "-")),
        )
        for fact in facts
    ]


FACT_HEADER = ("metric", "value", "95% interval", "change", "95% interval of the change")


def group_rows(rows: Iterable[dict[str, object]]) -> list[tuple[str, ...]]:
    """Returns a row per group: size, accuracy of both sides, difference."""

    def words(row: dict[str, object], name: str) -> str:
        value = row[name]
        return number(float(value)) if isinstance(value, float | int) else str(value)

    names = ("attribute", "group", "n", "value_a", "value_b", "difference", "low", "high")
    return [tuple(words(row, name) for name in names) for row in rows]


GROUP_HEADER = ("attribute", "group", "n", "reference", "model", "difference", "low", "high")
