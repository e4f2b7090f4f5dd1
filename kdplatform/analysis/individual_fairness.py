"""Individual fairness: do similar examples get similar predictions?

Similarity is measured in a feature space that belongs to none of the compared models: a fixed
encoder, or the generating factors of generated data. The result names this space, since every
number depends on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.calibration import check_temperature, probabilities
from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray, IntArray, Predictions, Table

Output = Literal["probabilities", "labels"]
OUTPUTS: tuple[Output, ...] = ("probabilities", "labels")

# Smallest cosine distance of a pair; smaller ones are raised to it. Otherwise one pair of
# near-duplicates could decide the mean.
DISTANCE_FLOOR = 0.01
# Pairs worked on at a time: bounds memory at 1,000 classes.
_PAIRS = 16_384


@dataclass(frozen=True)
class FeatureSpace:
    """Feature vectors of examples.

    Attributes:
        name: The encoder, as tables show it.
        ids: Example ids. [examples]
        vectors: One feature vector per example, none of them zero. [examples, features]
    """

    name: str
    ids: npt.NDArray[np.generic]
    vectors: FloatArray

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.ids):
            raise ValueError(
                f"vectors have shape {self.vectors.shape}; allowed: ({len(self.ids)}, features)"
            )
        if pd.Index(self.ids).has_duplicates:
            raise ValueError(f"ids of feature space {self.name!r} repeat; allowed: unique ids")
        if not np.isfinite(self.vectors).all():
            raise ValueError(f"vectors of {self.name!r} are not finite; allowed: finite numbers")
        if not self.vectors.any(axis=1).all():
            row = int(np.flatnonzero(~self.vectors.any(axis=1))[0])
            raise ValueError(f"vector of id {self.ids[row]} is zero; allowed: a direction")

    def rows_of(self, table: Predictions) -> IntArray:
        """Rows of the table in the order of this space.

        Raises:
            ValueError: An example of the space is not in the table.
        """
        rows = np.asarray(pd.Index(table.ids).get_indexer(pd.Index(self.ids)), dtype=np.int64)
        if rows.min() < 0:
            absent = self.ids[int(rows.argmin())]
            raise ValueError(
                f"id {absent} of feature space {self.name!r} is not in the table; "
                "allowed: tables that hold all its ids"
            )
        return rows


def factor_space(table: Table, columns: Sequence[str], dataset: str | None = None) -> FeatureSpace:
    """The generating factors of generated data as a feature space.

    Every factor becomes a vector of length 1. A category is an axis of its own. A number is a point
    on a quarter of a circle between its smallest and largest value. The cosine similarity of two
    examples is then the mean over factors of their similarities: 1 for equal values, 0 for
    different categories or opposite ends.

    Args:
        dataset: the dataset's name, for the name of the space; None: only the columns are named.

    Raises:
        ValueError: there is no column, or one is not in the table, or has missing or infinite
            values.
    """
    examples = Predictions.of(table)
    known = examples.columns
    unknown = [column for column in columns if column not in known]
    if unknown or not columns:
        what = f"column {unknown[0]!r} is not in the table" if unknown else "columns are empty"
        raise ValueError(f"{what}; allowed: of {list(known)}")
    parts = [_factor(known[column]) for column in columns]
    kind = f"generating factors of {dataset}" if dataset else "columns"
    name = f"{kind} ({', '.join(columns)})"
    return FeatureSpace(name, examples.ids, np.concatenate(parts, axis=1))


def _factor(values: pd.Series) -> FloatArray:
    if values.isna().any():
        raise ValueError(f"column {values.name!r} has missing values; allowed: a value everywhere")
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        number = values.to_numpy(dtype=float)
        span = float(np.ptp(number))
        angle = (number - number.min()) / (span or 1.0) * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(pd.get_dummies(values), dtype=float)


class Pairs(NamedTuple):
    """Pairs of examples of a feature space, with their distances.

    Attributes:
        first: Positions in the space. [pairs]
        second: Positions in the space. [pairs]
        distance: Cosine distance, at least `floor`. [pairs]
        floored: Pairs whose distance was below it.
    """

    space: FeatureSpace
    first: IntArray
    second: IntArray
    distance: FloatArray
    floor: float
    floored: int


class IndividualFairness(NamedTuple):
    """Individual unfairness of a model and the settings of its measurement.

    Attributes:
        unfairness: I(f), lower is better.
        output: The compared output of the model ("probabilities" or "labels").
        temperature: The temperature that divided the logits; 1 unless calibrated.
        floored: Pairs whose distance was raised to the floor.
    """

    unfairness: float
    output: str
    temperature: float
    pairs: int
    floored: int
    floor: float
    space: str


class Neighbours(NamedTuple):
    """The nearest other examples of every example of a feature space. [examples, k]."""

    space: FeatureSpace
    rows: IntArray


def _unique_pairs(examples: int, count: int, seed: int) -> tuple[IntArray, IntArray]:
    """Distinct unordered pairs of different examples; all of them when there are no more."""
    total = examples * (examples - 1) // 2
    generator = np.random.default_rng(seed)
    if total <= 4 * count:
        rows, columns = np.triu_indices(examples, 1)
        kept = generator.permutation(total)[:count]
        return rows[kept].astype(np.int64), columns[kept].astype(np.int64)
    chosen = np.empty(0, dtype=np.int64)
    while len(chosen) < count:
        first = generator.integers(0, examples, 2 * count)
        second = (first + generator.integers(1, examples, 2 * count)) % examples
        keys = np.minimum(first, second) * examples + np.maximum(first, second)
        chosen = np.unique(np.concatenate([chosen, keys]))
    chosen = generator.choice(chosen, count, replace=False)
    return chosen // examples, chosen % examples


def sample_pairs(
    space: FeatureSpace, *, count: int = 100_000, seed: int = 0, floor: float = DISTANCE_FLOOR
) -> Pairs:
    """Draws the pairs of examples that all models are measured on.

    Args:
        count: Number of distinct pairs; all pairs when there are fewer.

    Raises:
        ValueError: The space has fewer than two examples, or an argument is out of range.
    """
    if len(space.ids) < 2:
        raise ValueError(f"feature space {space.name!r} has 1 example; allowed: at least 2")
    if count < 1:
        raise ValueError(f"count is {count}; allowed: at least 1")
    if not 0 < floor < 2:
        raise ValueError(f"floor is {floor}; allowed: above 0 and below 2")
    first, second = _unique_pairs(len(space.ids), count, seed)
    unit = space.vectors / np.linalg.norm(space.vectors, axis=1, keepdims=True)
    cosine = np.empty(len(first))
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        cosine[part] = np.einsum("ij,ij->i", unit[first[part]], unit[second[part]])
    distance = 1 - cosine
    floored = int((distance < floor).sum())
    return Pairs(space, first, second, np.maximum(distance, floor), floor, floored)


def individual_unfairness(
    table: Table,
    pairs: Pairs,
    *,
    output: Output = "probabilities",
    temperature: float = 1.0,
) -> IndividualFairness:
    """I(f): mean over pairs of |f(x) - f(x')| / d(x, x').

    This follows the Lipschitz condition of Dwork et al. 2012 (arXiv 1104.3913), as Mohammadshahi
    and Ioannou 2025 report it. |f(x) - f(x')| is the total variation, half the sum over classes of
    |p_c - p_c'|. For two classes it is the difference in probability, and for hard labels it is 1
    if they differ. d is the cosine distance.

    On probabilities I(f) falls when outputs get softer, whether or not decisions get fairer. Read
    it beside the value on labels and the value at each model's calibrating temperature.

    Args:
        pairs: The pairs, the same for every model compared.
        output: Compare softmax probabilities, or predicted labels.
        temperature: Divides the logits first; `calibration.calibrating_temperature` of validation
            data gives the calibrated value.

    Raises:
        ValueError: An example is missing, or the logits are.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output is {output!r}; allowed: {list(OUTPUTS)}")
    check_temperature(temperature)
    checked = Predictions.of(table)
    rows = pairs.space.rows_of(checked)
    if output == "labels":
        predictions = checked.predictions[rows]
        gap = (predictions[pairs.first] != predictions[pairs.second]).astype(float)
    else:
        p = probabilities(checked, temperature)[rows]
        gap = np.empty(len(pairs.first))
        for start in range(0, len(gap), _PAIRS):
            part = slice(start, start + _PAIRS)
            gap[part] = np.abs(p[pairs.first[part]] - p[pairs.second[part]]).sum(axis=1) / 2
    return IndividualFairness(
        unfairness=float(np.mean(quotient(gap, pairs.distance))),
        output=output,
        temperature=temperature,
        pairs=len(gap),
        floored=pairs.floored,
        floor=pairs.floor,
        space=pairs.space.name,
    )


def nearest_neighbours(space: FeatureSpace, k: int = 5) -> Neighbours:
    """The k nearest other examples of each example, by cosine distance.

    Raises:
        ValueError: There are not k other examples.
    """
    if not 1 <= k < len(space.ids):
        raise ValueError(f"k is {k}; allowed: 1 to {len(space.ids) - 1}")
    from sklearn.neighbors import NearestNeighbors  # slow to load, and only few studies need it

    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(space.vectors)
    # without an argument the example itself is not its own neighbour
    return Neighbours(space, search.kneighbors(return_distance=False).astype(np.int64))


def consistency(table: Table, neighbours: Neighbours) -> float:
    """Consistency of predicted labels: the mean share of neighbours that get the same label.

    For two classes it is 1 - mean over examples of |y_i - mean of its k neighbours' y| (Zemel et
    al. 2013). With more classes the difference is the share of neighbours with another predicted
    label, which is the same number for two classes. The example is not its own neighbour.

    Raises:
        ValueError: An example of the feature space is not in the table.
    """
    checked = Predictions.of(table)
    predictions = checked.predictions[neighbours.space.rows_of(checked)]
    return float(np.mean(predictions[neighbours.rows] == predictions[:, None]))
