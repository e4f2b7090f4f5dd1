"""Many models on the same examples, compressed for resampling.

Examples that agree in group, label, weight and every model's prediction are one profile. Resampling
examples is then a multinomial draw of profile sizes, and the counts behind every fairness metric
are one sparse product with them: the same draw serves all models, so their metrics stay paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from kdplatform.analysis.group_fairness import classes_seen
from kdplatform.analysis.group_rates import GroupCounts, LargeEnough, count_codes
from kdplatform.analysis.tables import Attribute, Groups, aligned_tables, attribute_groups
from kdplatform.predictions import FloatArray, IntArray, Table

Arms = Mapping[str, Sequence[Table]]

# Drawing a profile's size in a multinomial costs as much as drawing this many examples singly.
_RARE = 6
# Counts held at a time: bounds memory, and keeps them in the cache of the processor.
COUNTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Models:
    """Predictions of several models on the examples that belong to a group.

    Attributes:
        groups: The attribute's groups; its codes are those of the examples kept.
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
    # Examples that count for nothing make no group larger.
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
    """Says how many examples have other groups in a second table, and which they are."""

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
        # the largest profiles first: how they are drawn depends on their size
        order = np.argsort(-size, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.profile, self.size, first = rank[profile], size[order], first[order]
        self._common = int((self.size > _RARE).sum())
        self._rare_profile = self.profile[self.profile >= self._common] - self._common
        self._counting = self._counting_matrix(
            models.groups.codes[first],
            models.labels[first],
            models.predictions[:, first],
            None if models.weights is None else models.weights[first],
        )

    def _counting_matrix(
        self,
        codes: IntArray,
        labels: IntArray,
        predictions: IntArray,
        weights: FloatArray | None,
    ) -> sparse.csr_array:
        """Which counts each profile enters: [positives, then every model's misses and alarms].

        Only errors are counted per model: a hit is a positive that is not missed, and what a model
        predicts is its hits and its false alarms. Models are mostly right, so this is sparse. An
        example counts as much as its weight.
        """
        cells = self._n_codes * self.n_classes
        model, wrong = np.nonzero(predictions != labels)
        label_cell = codes * self.n_classes + labels
        misses = cells * (1 + model) + label_cell[wrong]
        alarm_cell = codes[wrong] * self.n_classes + predictions[model, wrong]
        alarms = cells * (1 + self.n_models + model) + alarm_cell
        rows = np.concatenate([label_cell, misses, alarms])
        columns = np.concatenate([np.arange(len(labels)), wrong, wrong])
        # counts of up to 2^24 examples are exact in single precision
        exact = len(self.profile) < 2**24 and weights is None
        kind = np.float32 if exact else np.float64
        entries = np.ones(len(rows)) if weights is None else weights[columns]
        shape = (cells * (1 + 2 * self.n_models), len(labels))
        return sparse.csr_array((entries.astype(kind), (rows, columns)), shape=shape)

    def counts(self, sizes: npt.NDArray[np.number]) -> GroupCounts:
        """Counts of resampled examples.

        Args:
            sizes: How often each profile was drawn. [profiles, draws]

        Returns:
            Counts with leading dimensions [draws, models].
        """
        flat = self._counting @ np.ascontiguousarray(sizes, dtype=self._counting.dtype)
        shape = (1 + 2 * self.n_models, self._n_codes, self.n_classes, -1)
        blocks = np.moveaxis(np.asarray(flat).reshape(shape), -1, 0)
        positives = blocks[:, :1]
        hits = positives - blocks[:, 1 : 1 + self.n_models]
        counts = GroupCounts(
            n=positives.sum(axis=-1),
            positives=positives,
            predicted=hits + blocks[:, 1 + self.n_models :],
            hits=hits,
        )
        return counts.of_groups(self._members)

    @property
    def counts_per_draw(self) -> int:
        """Number of counts that one draw makes, over all models."""
        return int(self._counting.shape[0])

    def observed(self) -> GroupCounts:
        """Counts of the examples as they are, with leading dimensions [1, models]."""
        return self.counts(self.size[:, None])

    def resampled(self, draws: int, generator: np.random.Generator) -> Iterator[GroupCounts]:
        """Counts of examples drawn with replacement, as many as there are, some draws at a time."""
        per_draw = max(self._counting.shape) + len(self._rare_profile)
        step = max(1, min(draws, COUNTS_AT_ONCE // per_draw))
        for start in range(0, draws, step):
            yield self.counts(self._sizes(min(step, draws - start), generator))

    def _sizes(self, draws: int, generator: np.random.Generator) -> IntArray:
        """How often each profile is drawn, a multinomial. [profiles, draws].

        The sizes of common profiles and of all rare ones together are drawn as a multinomial. The
        examples of the rare ones are then drawn singly. The distribution is the same, and the cost
        is the lower of both.
        """
        n, rare = len(self.profile), len(self._rare_profile)
        chances = np.append(self.size[: self._common], rare) / n
        sizes = generator.multinomial(n, chances, size=draws).T
        singly = sizes[-1]
        chosen = generator.integers(0, max(rare, 1), size=singly.sum(), dtype=np.uint32)
        cell = np.take(self._rare_profile * draws, chosen)
        cell += np.repeat(np.arange(draws), singly)
        n_rare = len(self.size) - self._common
        drawn = np.bincount(cell, minlength=n_rare * draws).reshape(n_rare, draws)
        return np.concatenate([sizes[:-1], drawn])
