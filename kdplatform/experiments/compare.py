"""The tool `compare`: compares two groups of runs, or of prediction files."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kdplatform.analysis.tables import Attribute, attribute_groups, listed
from kdplatform.arguments import boolean, optional_path, report_formats
from kdplatform.columns import check_attributes
from kdplatform.errors import UserError
from kdplatform.experiments.compared_sides import (
    FRACTIONS,
    MANY_VALUES,
    Sides,
    Source,
    read_sides,
)
from kdplatform.experiments.prediction_files import USAGE
from kdplatform.experiments.run_names import named_run
from kdplatform.experiments.weight_column import WEIGHT, check_weighted_groups, weight_note
from kdplatform.files import place_of_folder
from kdplatform.predictions import Predictions
from kdplatform.progress import say
from kdplatform.settings.gates import GateFile, read_gate
from kdplatform.settings.schema import names
from kdplatform.study.factors import GENERATING_FACTORS

if TYPE_CHECKING:
    from kdplatform.reporting.comparison import Comparison
    from kdplatform.reporting.comparison_result import ComparisonResult
    from kdplatform.reporting.gallery import Shown

# With more attributes than this, their pairs are compared only if the attributes are named.
_MOST_FOUND_ATTRIBUTES = 4
_MIN_GROUP_SHARE = "0.02"


def run_compare(
    sides: Sequence[str],
    *,
    attributes: str = "auto",
    similar_by: str = "auto",
    min_group_size: str = "30",
    min_group_share: str = _MIN_GROUP_SHARE,
    positive: str = "auto",
    out: str = "none",
    format: str = "markdown",
    gate: str = "none",
    card: str = "false",
    log: str = "auto",
) -> None:
    """Compares two sides and prints the differences; writes tables and a page on request.

    Args:
        sides: run ids or prediction files, comma-separated, of either side.
        attributes: columns whose groups are compared, comma-separated; `auto`: columns that look
            like one.
        similar_by: columns for the similarity of examples; `auto`: known generating factors.
        min_group_size: groups smaller than this are listed and not measured.
        min_group_share: groups of a smaller share of the examples have no impact ratio.
        positive: the favourable class; `auto`: class 1 of two.
        out: folder for the page and its tables; `none`: nowhere.
        format: formats of the report beside the page, such as `markdown,latex`.
        gate: file of rules that side B must keep; `none`: no rules.
        card: whether model cards are written beside the page.
        log: whether the comparison is logged as a run: `auto`, `true` or `false`.

    Raises:
        UserError: a side cannot be read, or the sides cannot be compared.
        GateFailedError: a rule of the gate is broken.
    """
    folder = optional_path("out", out)
    if folder is not None:
        place_of_folder("out", folder)
    size, share = _group_size(min_group_size), _group_share(min_group_share)
    formats = report_formats(format)
    named = [_predictions_of(side) for side in sides]
    rules, with_card = read_gate(gate), boolean("card", card)
    if log not in ("auto", "true", "false"):
        raise UserError(f"log={log!r} is not allowed; allowed: auto | true | false")
    logged = _is_logged(log, named)
    if with_card and folder is None and not logged:
        raise UserError(
            "card=true has nowhere to go; allowed: with out=folder, or a run of its own"
        )
    if format not in ("markdown", "none") and folder is None and not logged:
        raise UserError(
            f"format={format!r} has nowhere to go; allowed: with out=folder, or a run of its own"
        )
    given = {"attributes": attributes, "similar_by": similar_by}
    asked, alike = (None if t == "auto" else _names_in(n, t) for n, t in given.items())
    comparison = compared_sides(
        named,
        attributes=asked,
        similar_by=alike,
        min_group_size=size,
        min_group_share=share,
        positive=None if positive == "auto" else positive,
        gate=rules,
    )
    if comparison.measures.assumed:
        say(comparison.measures.assumed)
    # Statistics and figures take seconds to load; a file that is no prediction table needs neither.
    from kdplatform.experiments.comparison_ending import Ending, conclude

    settings = {**given, "min_group_size": min_group_size, "min_group_share": min_group_share}
    settings |= {"positive": positive, "a": sides[0], "b": sides[1]}
    conclude(comparison, named, Ending(folder, formats, rules, with_card, logged, settings))


def compare(
    a: "Source | Sequence[Source]",
    b: "Source | Sequence[Source]",
    *,
    attributes: Sequence[str] | str | None = None,
    similar_by: Sequence[str] | str | None = None,
    min_group_size: int = 30,
    min_group_share: float = float(_MIN_GROUP_SHARE),
    positive: str | int | None = None,
) -> "ComparisonResult":
    """Compares side B with side A, the reference, as the command `kdplatform compare` does.

    A side is one model or several, one per seed: data frames or checked predictions, paths of
    prediction files, or run ids. The columns are those of prediction files: `id`, `label`,
    `prediction`, and optionally `logits`, `weight` and attributes. Labels and predictions may be
    numbers from 0 or names.

    Args:
        attributes: Columns whose groups and intersections are compared; None: those that look like
            attributes.
        similar_by: Columns for the similarity of examples, for individual fairness.
        min_group_size: Groups smaller than this are listed and not measured.
        min_group_share: Groups of a smaller share of the examples have no impact ratio.
        positive: The favourable class, by name or number; None: class 1 of two.

    Returns:
        What was found, as data frames and as a page.

    Raises:
        UserError: A side cannot be read, or the sides cannot be compared.
    """
    return _result(
        compared_sides(
            [_sources("a", a), _sources("b", b)],
            attributes=_listed("attributes", attributes),
            similar_by=_listed("similar_by", similar_by),
            min_group_size=_group_size(str(min_group_size)),
            min_group_share=_group_share(str(min_group_share)),
            positive=None if positive is None else str(positive),
            from_python=True,
        )
    )


def _result(comparison: "Comparison") -> "ComparisonResult":
    from kdplatform.reporting.comparison_result import ComparisonResult

    return ComparisonResult(comparison)


def compared_sides(
    given: Sequence[Sequence[Source]],
    *,
    attributes: tuple[str, ...] | None,
    similar_by: tuple[str, ...] | None,
    min_group_size: int,
    min_group_share: float,
    positive: str | None,
    gate: GateFile | None = None,
    from_python: bool = False,
) -> "Comparison":
    """Reads and compares two sides: the common part of the command and the function.

    Args:
        gate: rules that are checked before anything is measured.
        from_python: whether notes name parameters as in Python.

    Raises:
        UserError: a side cannot be read, or the sides cannot be compared.
    """
    read = read_sides(given)
    # Statistics and figures take seconds to load; a file that is no prediction table needs neither.
    from kdplatform.reporting.comparison import build_comparison
    from kdplatform.study.gates import check_gate_of_comparison

    try:
        found = _attributes(attributes, read)
        compared = [*found, *_intersections(attributes, found)]
        if gate is not None:
            check_gate_of_comparison(gate, compared)
        check_weighted_groups(read.first.tables[0], compared)
        return build_comparison(
            read.first,
            read.second,
            compared,
            _similar_by(similar_by, read),
            min_group_size,
            remarks=list(_remarks(attributes, read, compared)),
            previews=_previews(given),
            positive=positive,
            min_group_share=min_group_share,
            from_python=from_python,
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def _sources(side: str, given: "Source | Sequence[Source]") -> Sequence[Source]:
    """Returns the models of a side, given as one, as several, or in the command's form."""
    if isinstance(given, str):
        return _predictions_of(given)
    if isinstance(given, list | tuple):
        if not given:
            raise UserError(f"side {side} is empty; allowed: tables, paths or run ids")
        paths = [os.path.normpath(each) for each in given if isinstance(each, str | Path)]
        frames = {id(each) for each in given if not isinstance(each, str | Path)}
        if len(set(paths)) + len(frames) != len(given):
            raise UserError(f"side {side} names the same predictions twice")
        return [_source_of(side, each) for each in given]
    return [_source_of(side, given)]


def _source_of(side: str, given: object) -> Source:
    if not isinstance(given, str | Path | pd.DataFrame | Predictions):
        raise UserError(
            f"side {side} has a {type(given).__name__}; allowed: data frames, paths of prediction "
            "files or run ids, one or a list of them"
        )
    return given


def _listed(parameter: str, given: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Returns names that are given as a sequence, or in the command's form."""
    if given is None:
        return None
    return _names_in(parameter, given) if isinstance(given, str) else tuple(map(str, given))


def _group_size(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,17}", text):
        raise UserError(f"min_group_size={text!r} is not allowed; allowed: integer >= 1")
    return int(text)


def _group_share(text: str) -> float:
    if not re.fullmatch(r"0|0?\.\d{1,17}|0\.0|\d(\.\d+)?e-\d{1,2}", text):
        raise UserError(f"min_group_share={text!r} is not allowed; allowed: 0 <= number < 1")
    return float(text)


def _is_logged(log: str, sides: Sequence[Sequence[str]]) -> bool:
    """Returns whether a comparison is logged as a run.

    Args:
        log: `true`, `false`, or `auto`: true if a side is a run, or a tracking store is named.
    """
    if log != "auto":
        return log == "true"
    named = any(named_run(name) for side in sides for name in side)
    return named or any(os.environ.get(v) for v in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"))


def _previews(sides: Sequence[Sequence[Source]]) -> "Mapping[str, Shown]":
    """Returns the examples that the runs among the sides have logged."""
    names = [source for side in sides for source in side if isinstance(source, str)]
    runs = [run.run_id for name in names if (run := named_run(name))]
    if not runs:
        return {}
    from kdplatform.experiments.examples import stored_previews

    return stored_previews(runs)


def _names_in(parameter: str, text: str) -> tuple[str, ...]:
    """Returns the names of a text such as `a,b`; a name with a comma needs quotes."""
    try:
        found = names(text)
    except ValueError as error:
        raise UserError(f"{parameter}={text!r} is not allowed; allowed: {error}") from None
    assert isinstance(found, tuple)
    return found


def _predictions_of(side: str) -> tuple[str, ...]:
    """Returns the runs or files of a side."""
    found = _names_in("side", side)
    if not found:
        raise UserError(f"side {side!r} is empty; allowed: {USAGE}")
    if len(set(map(os.path.normpath, found))) != len(found):
        raise UserError(f"side {side!r} names the same predictions twice")
    return found


def _attributes(given: tuple[str, ...] | None, sides: Sides) -> tuple[str, ...]:
    """Returns the requested attributes, or those that all tables have."""
    if given is None:
        return sides.attributes
    if WEIGHT in given and sides.first.tables[0].weights is not None:
        raise UserError(
            f"attributes={WEIGHT!r}: that column weighs the examples; allowed: others, or another "
            "name for it"
        )
    _check_columns("attributes", given, sides)
    reference = sides.first.tables[0]
    for name in given:
        attribute_groups(reference, name)  # refuses columns that are neither text nor numbers
    check_attributes(reference.columns, reference.labels, given, f"attributes={','.join(given)!r}")
    return given


def _intersections(
    given: tuple[str, ...] | None, attributes: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Returns the pairs of attributes; empty for many attributes that were only found in a file."""
    if given is None and len(attributes) > _MOST_FOUND_ATTRIBUTES:
        return []
    return list(combinations(attributes, 2))


def _remarks(
    given: tuple[str, ...] | None, sides: Sides, attributes: Sequence[Attribute]
) -> Iterator[str]:
    """Says how examples are weighted, and which columns are not compared by group and why."""
    weights = sides.first.tables[0].weights
    if weights is not None:
        yield weight_note(weights)
    if given is None and sides.left_out:
        columns = ", ".join(f"{name} ({reason})" for name, reason in sides.left_out.items())
        table = sides.first.tables[0].columns
        numbers = any(
            reason in (FRACTIONS, MANY_VALUES.format(table[name].nunique()))
            and pd.api.types.is_numeric_dtype(table[name].dtype)
            for name, reason in sides.left_out.items()
            if name in table
        )
        hint = "; put numbers into bands first" if numbers else ""
        yield f"Not compared by group: {columns}; --attributes names columns that are{hint}."
    if given is not None:
        found = map(str, sides.first.tables[0].columns)
        if others := [name for name in found if name not in given]:
            yield f"Not compared by group, because not named: {listed(others)}."
    if len(attributes) == len(sides.attributes) > _MOST_FOUND_ATTRIBUTES:
        yield (
            f"Pairs of the {len(attributes)} attributes are not compared; --attributes names the "
            "attributes whose pairs are."
        )


def _similar_by(given: tuple[str, ...] | None, sides: Sides) -> tuple[str, ...]:
    """Returns the requested columns, or the generating factors of a dataset that both sides have.

    Generating factors are recognised by their names.
    """
    if given is not None:
        _check_columns("similar_by", given, sides)
        return given
    tables = [*sides.first.tables, *sides.second.tables]
    for factors in GENERATING_FACTORS.values():
        if all(set(factors) <= set(table.columns) for table in tables):
            return factors
    return ()


def _check_columns(parameter: str, given: Sequence[str], sides: Sides) -> None:
    for name in given:
        if given.count(name) > 1:
            raise UserError(f"{parameter} has {name!r} twice; allowed: every column once")
        for side in (sides.first, sides.second):
            for table in side.tables:
                if name not in table.columns:
                    known = ", ".join(map(str, table.columns)) or "none"
                    raise UserError(
                        f"{parameter}={name!r} is not a column of {side.title}; known: {known}"
                    )
