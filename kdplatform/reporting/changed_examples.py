"""The examples of a pair that a page shows: those whose change most models show."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from kdplatform.analysis.tables import Attribute, attribute_groups
from kdplatform.predictions import IntArray, Predictions
from kdplatform.reporting.gallery import Changed, Gallery, Shown
from kdplatform.reporting.pairs import Pair

_MOST_SHOWN = 24  # in each direction
_MOST_IMAGE_BYTES = 600_000  # of one gallery, as encoded in the page
_MOST_CELLS = 8
_LONGEST_CELL = 80


def gallery_of(
    pair: Pair, attributes: Sequence[Attribute], previews: Mapping[str, Shown]
) -> Gallery:
    """Returns the examples that only one side gets right.

    Args:
        attributes: attributes whose groups are named; intersections are left out.
        previews: logged previews of examples, by id. Other examples are shown by the further
            columns of their prediction tables.
    """
    a, b = (np.stack([table.correct for table in side]) for side in (pair.a, pair.b))
    own = [name for name in attributes if isinstance(name, str)]
    groups = {name: _group_names(pair.a[0], name) for name in own}
    directions = [f"only {name} is right" for name in pair.short]
    shown: list[Changed] = []
    counts: dict[str, int] = {}
    pairs = len(a) if pair.paired else len(a) * len(b)
    for direction, right, wrong, side in (
        (directions[0], a, ~b, pair.b),
        (directions[1], b, ~a, pair.a),
    ):
        agreement = _agreement(right, wrong, paired=pair.paired)
        counts[direction] = int((2 * agreement > pairs).sum())
        rows = _chosen(pair.a[0], agreement, groups, previews)
        predicted = np.stack([table.predictions for table in side])
        for row in rows:
            shown.append(
                Changed(
                    str(pair.a[0].ids[row]),
                    _shown(pair.a[0], row, previews),
                    direction,
                    _name(pair, int(pair.a[0].labels[row])),
                    _name(pair, _most_frequent(predicted[:, row], wrong[:, row])),
                    {name: words[row] for name, words in groups.items() if words[row]},
                    int(agreement[row]),
                    pairs,
                )
            )
    return Gallery(_within_bytes(shown), directions, counts, list(_notes(shown, previews, pairs)))


def _agreement(right: np.ndarray, wrong: np.ndarray, *, paired: bool) -> IntArray:
    """How many pairs of models change an example this way. [examples]."""
    if paired:
        return np.asarray((right & wrong).sum(axis=0), dtype=np.int64)
    return np.asarray(right.sum(axis=0) * wrong.sum(axis=0), dtype=np.int64)


def _chosen(
    table: Predictions,
    agreement: IntArray,
    groups: Mapping[str, Sequence[str]],
    previews: Mapping[str, Shown],
) -> list[int]:
    """The rows to show, from every class and group in turn, with the most agreement first.

    Examples with a preview come before those with only a table row.
    """
    candidates = np.flatnonzero(agreement > 0)
    seen = np.array([str(table.ids[row]) in previews for row in candidates], dtype=bool)
    if seen.any():
        candidates, seen = candidates[seen], seen[seen]
    candidates = candidates[np.argsort(-agreement[candidates], kind="stable")]
    cells: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row in candidates.tolist():
        cell = (int(table.labels[row]), *(words[row] for words in groups.values()))
        if len(cells[cell]) < _MOST_SHOWN:
            cells[cell].append(row)
    in_turn = [row for turn in zip_longest(*cells.values()) for row in turn if row is not None]
    first = in_turn[:_MOST_SHOWN]
    return sorted(first, key=lambda row: -int(agreement[row]))


def _group_names(table: Predictions, attribute: str) -> list[str]:
    """The groups of every example: joined if several, empty if none."""
    groups = attribute_groups(table, attribute)
    of_code = [
        " + ".join(groups.names[place] for place in np.flatnonzero(own)) for own in groups.members
    ]
    return ["" if code < 0 else of_code[code] for code in groups.codes.tolist()]


def _most_frequent(predictions: np.ndarray, wrong: np.ndarray) -> int:
    return int(Counter(predictions[wrong].tolist()).most_common(1)[0][0])


def _name(pair: Pair, number: int) -> str:
    return pair.class_names[number] if number < len(pair.class_names) else str(number)


def _shown(table: Predictions, row: int, previews: Mapping[str, Shown]) -> Shown:
    if found := previews.get(str(table.ids[row])):
        return found
    cells = [
        (str(name), " ".join(str(table.columns[name].iloc[row]).split())[:_LONGEST_CELL])
        for name in list(table.columns)[:_MOST_CELLS]
    ]
    return Shown(cells=cells)


def _within_bytes(examples: Sequence[Changed]) -> list[Changed]:
    """As many examples as a page has room for, equally in both directions."""
    kept, used = [], 0
    for example in sorted(examples, key=lambda own: -own.models):
        used += len(example.shown.image)
        if used <= _MOST_IMAGE_BYTES:
            kept.append(example)
    return kept


def _notes(shown: Sequence[Changed], previews: Mapping[str, Shown], pairs: int) -> Iterator[str]:
    if not shown:
        yield "No example is right on one side only."
        return
    if pairs > 1:
        yield (
            "The counts include the examples whose change most pairs of models show. Examples with "
            "the most agreement come first, from every class and group in turn."
        )
    else:
        yield (
            "There is one pair of models. The page shows examples of every class and group in turn."
        )
    if not previews:
        yield (
            "No run has logged images or texts of these examples, so the columns of the prediction "
            "tables are shown."
        )
    else:
        yield (
            "Runs log only the changed examples of which the models are most certain, so not all "
            "can be shown."
        )
