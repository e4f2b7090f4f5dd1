"""Many models on the same examples, compressed for resampling.

Examples that agree in group, label, weight and every model's prediction form one profile.
Resampling examples is then a multinomial draw of profile sizes. The counts behind every fairness
metric are one sparse product with these sizes. The same draw serves all models, so their metrics
stay paired.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from kdplatform.analysis.group_fairness import classes_seen
from kdplatform.analysis.group_rates import GroupCounts, LargeEnough, Measure, count_codes
from kdplatform.analysis.multinomial import Resampler
from kdplatform.analysis.tables import Attribute, Groups, aligned_tables, attribute_groups
from kdplatform.analysis.threads import in_threads
from kdplatform.predictions import FloatArray, IntArray, Table

Arms = Mapping[str, Sequence[Table]]

# Number of counts in memory at a time. This bounds memory, and keeps the counts in the processor's
# cache.
COUNTS_AT_ONCE = 1_000_000
# Fewest draws at a time; with fewer a sparse product is inefficient.
_FEWEST_DRAWS = 64


@dataclass(frozen=True)
class Models:
    """Predictions of several models on the examples that belong to a group.

    Attributes:
        groups: The attribute's groups; the codes are those of the kept examples.
        labels: True classes, numbered 0 to n_classes - 1. [examples]
        predictions: Predicted classes. [models, examples]
        large: Which rates of which groups are measured.
        weights: How much each example counts; None: all alike. [examples]
    """

    groups: Groups
    n_classes: int
    labels: IntArray
    predictions: IntArray
    large: LargeEnough
    weights: FloatArray | None = None


def models_of_arms(arms: Arms, attribute: Attribute, min_group_size: int) -> Models:
    """Aligns the tables of arms and keeps the examples that belong to a group of the attribute.

    Raises:
        ValueError: There is no arm or an arm has no table, a table is invalid, ids, labels or
            groups differ between tables, or `min_group_size` is below 1.
    """
    if not arms or not all(len(tables) for tables in arms.values()):
        raise ValueError(f"arms are {list(arms)}; allowed: at least one, each with a table")
    first, *others = aligned_tables([table for tables in arms.values() for table in tables])
    groups = attribute_groups(first, attribute)
    for table in others:
        other = attribute_groups(table, attribute)
        if not _equal(other, groups):
            raise ValueError(
                f"tables disagree on the groups of {groups.attribute!r} for "
                f"{_differing(groups, other, first)}; allowed: one group per id"
            )
    predictions = np.stack([first.predictions, *(other.predictions for other in others)])
    classes = classes_seen(first.labels, predictions)
    inside = groups.codes >= 0
    codes, labels = groups.codes[inside], np.searchsorted(classes, first.labels[inside])
    weights = None if first.weights is None else first.weights[inside]
    # Examples of weight 0 make no group larger.
    present = None if weights is None else (weights > 0).astype(float)
    counts = count_codes(codes, labels, labels, len(groups.members), len(classes), present)
    return Models(
        groups=replace(groups, codes=codes),
        n_classes=len(classes),
        labels=labels,
        predictions=np.searchsorted(classes, predictions[:, inside]),
        large=LargeEnough.of(counts.of_groups(groups.members), min_group_size),
        weights=weights,
    )


def _equal(one: Groups, other: Groups) -> bool:
    return (
        one.names == other.names
        and np.array_equal(one.codes, other.codes)
        and np.array_equal(one.members, other.members)
    )


def _differing(one: Groups, other: Groups, table: Table) -> str:
    """Says how many examples have other groups in a second table, and names some."""

    def names(groups: Groups) -> list[str]:
        known = [",".join(np.array(groups.names)[row]) for row in groups.members]
        return [known[code] if code >= 0 else "" for code in groups.codes.tolist()]

    ids = table.ids[np.array(names(one)) != np.array(names(other))].tolist()
    shown = ", ".join(map(str, ids[:3])) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} of {len(table.ids)} ids ({shown})"


class Profiles:
    """The distinct profiles of some models, and the fairness counts of resampled examples."""

    def __init__(self, models: Models) -> None:
        self.n_models = len(models.predictions)
        self._members = models.groups.members
        self._n_codes = len(self._members)
        self.n_classes = models.n_classes
        key = models.groups.codes
        for column in (models.labels, *models.predictions):
            # renumbering keeps the key small, so that it cannot overflow
            key = pd.factorize(key * models.n_classes + column)[0].astype(np.int64)
        if models.weights is not None:
            level, values = pd.factorize(models.weights)
            key = pd.factorize(key * len(values) + level)[0].astype(np.int64)
        _, first, profile, size = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        # the largest profiles first, because their size decides how they are drawn; then by label
        # and group, so that the counts of a group and label are neighbours in memory
        order = np.lexsort((models.labels[first], models.groups.codes[first], -size))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.profile, self.size, first = rank[profile], size[order], first[order]
        self._kind = np.float32 if self._is_exact(models.weights) else np.float64
        weights = None if models.weights is None else models.weights[first]
        self._positives, self._errors = self._counting_matrices(
            models.groups.codes[first], models.labels[first], models.predictions[:, first], weights
        )

    def _is_exact(self, weights: FloatArray | None) -> bool:
        """Whether counts are exact in single precision: those of up to 2^24 examples."""
        return weights is None and len(self.profile) < 1 << 22

    def _counting_matrices(
        self,
        codes: IntArray,
        labels: IntArray,
        predictions: IntArray,
        weights: FloatArray | None,
    ) -> tuple[sparse.csr_array, list[tuple[slice, sparse.csr_array]]]:
        """The counts that each profile enters: positives, and some models' misses and false alarms.

        Only errors are counted per model. Hits are positives that are not missed, and predictions
        of a class are its hits and false alarms. Models are mostly right, so these matrices are
        sparse. An example counts as much as its weight.

        Returns:
            Positives [cells, profiles], and for every few models their errors
            [2 (misses, alarms) * models * cells, profiles].
        """
        cells = self._n_codes * self.n_classes
        entries = np.ones(len(labels)) if weights is None else weights
        label_cell = codes * self.n_classes + labels

        def matrix(rows: IntArray, columns: IntArray, blocks: int) -> sparse.csr_array:
            values = entries[columns].astype(self._kind)
            return sparse.csr_array((values, (rows, columns)), shape=(blocks * cells, len(labels)))

        step = max(1, COUNTS_AT_ONCE // (_FEWEST_DRAWS * 2 * cells))
        errors = []
        for start in range(0, self.n_models, step):
            own = predictions[start : start + step]
            model, wrong = np.nonzero(own != labels)
            misses = cells * model + label_cell[wrong]
            alarm_cell = codes[wrong] * self.n_classes + own[model, wrong]
            alarms = cells * (len(own) + model) + alarm_cell
            rows, columns = np.concatenate([misses, alarms]), np.concatenate([wrong, wrong])
            models = slice(start, start + len(own))
            errors.append((models, matrix(rows, columns, 2 * len(own))))
        return matrix(label_cell, np.arange(len(labels)), 1), errors

    def counts(self, sizes: npt.NDArray[np.number]) -> Iterator[GroupCounts]:
        """Counts of resampled examples, some models at a time.

        Args:
            sizes: How often each profile was drawn. [profiles, draws]

        Returns:
            Counts with leading dimensions [draws, models].
        """
        drawn: npt.NDArray[np.floating] = np.ascontiguousarray(sizes, dtype=self._kind)

        def by_cell(matrix: sparse.csr_array) -> npt.NDArray[np.floating]:
            # [draws, models, codes, classes] of [models * codes * classes, draws]
            flat = np.asarray(matrix @ drawn)
            shape = (-1, self._n_codes, self.n_classes, flat.shape[1])
            return np.moveaxis(flat.reshape(shape), -1, 0)

        positives = by_cell(self._positives)
        n = positives.sum(axis=-1)
        for models, matrix in self._errors:
            errors, half = by_cell(matrix), models.stop - models.start
            hits = positives - errors[:, :half]
            predicted = hits + errors[:, half:]
            yield GroupCounts(n, positives, predicted, hits, models).of_groups(self._members)

    @property
    def counts_per_draw(self) -> int:
        """Number of counts that one draw makes at a time."""
        return max(int(matrix.shape[0]) for _, matrix in self._errors)

    def observed(self) -> GroupCounts:
        """Counts of the examples as they are, with leading dimensions [1, models]."""
        parts = list(self.counts(self.size[:, None]))
        predicted, hits = (
            np.concatenate([getattr(part, name) for part in parts], axis=1).astype(float)
            for name in ("predicted", "hits")
        )
        n, positives = parts[0].n.astype(float), parts[0].positives.astype(float)
        return GroupCounts(n, positives, predicted, hits, slice(0, self.n_models))

    def resampled(
        self, draws: int, generator: np.random.Generator, measure: Measure, large: LargeEnough
    ) -> dict[str, FloatArray]:
        """Measures examples drawn with replacement, as many as there are.

        Returns:
            By metric. [draws, models, ...]
        """
        resampler, found = Resampler(self.size), Measured(draws, self.n_models)
        per_draw = max(self.counts_per_draw, len(self.size))
        step = min(draws, max(_FEWEST_DRAWS, COUNTS_AT_ONCE // per_draw))
        starts = range(0, draws, step)

        def part(start: int, own: np.random.Generator) -> list[MeasuredPart]:
            drawn = resampler.draw(min(step, draws - start), own)
            counts = self.counts(drawn)
            return [MeasuredPart(start, each.models, measure(each, large)) for each in counts]

        # Every part has its own stream of random numbers, so the number of threads changes nothing.
        parts = list(zip(starts, generator.spawn(len(starts)), strict=True))
        for measured in in_threads(lambda each: part(*each), parts, len(parts)):
            found.add(measured)
        return found.values


class MeasuredPart(NamedTuple):
    """Metrics of some models in the draws from `start`, by name. [draws, models, ...]."""

    start: int
    models: slice
    values: Mapping[str, FloatArray]


class Measured:
    """Metrics of many draws, collected from parts: some draws of some models."""

    def __init__(self, draws: int, models: int) -> None:
        self.values: dict[str, FloatArray] = {}
        self._shape = draws, models

    def add(self, parts: Iterable[MeasuredPart]) -> None:
        """Adds the metrics of some draws."""
        for start, models, values in parts:
            for name, value in values.items():
                if name not in self.values:
                    self.values[name] = np.empty(self._shape + value.shape[2:])
                self.values[name][start : start + len(value), models] = value
