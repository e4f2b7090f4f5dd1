import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cosine

from kdplatform.analysis.calibration import probabilities
from kdplatform.analysis.individual_fairness import (
    FeatureSpace,
    consistency,
    factor_space,
    individual_unfairness,
    nearest_neighbours,
    sample_pairs,
)


def space(n=12, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return FeatureSpace("factors", np.arange(n), vectors)


def table(n=12, classes=4, seed=1):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)).astype(np.float32)
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "label": rng.integers(0, classes, n),
            "prediction": logits.argmax(axis=1),
            "logits": list(logits),
        }
    )


def test_unfairness_is_the_mean_ratio_over_all_pairs():
    features, data = space(), table()
    pairs = sample_pairs(features)
    p = probabilities(data)
    expected = [
        np.abs(p[i] - p[j]).sum()
        / 2
        / max(cosine(features.vectors[i], features.vectors[j]), pairs.floor)
        for i in range(12)
        for j in range(i)
    ]
    result = individual_unfairness(data, pairs)
    assert result.unfairness == pytest.approx(np.mean(expected))
    assert (result.pairs, result.space) == (66, "factors")


def test_labels_count_pairs_that_differ():
    pairs = sample_pairs(space())
    data = table()
    differs = (
        data["prediction"].to_numpy()[pairs.first] != data["prediction"].to_numpy()[pairs.second]
    )
    result = individual_unfairness(data, pairs, output="labels")
    assert result.unfairness == pytest.approx(np.mean(differs / pairs.distance))


def test_softer_outputs_lower_unfairness_of_probabilities_but_not_of_labels():
    pairs, data = sample_pairs(space()), table()
    soft = individual_unfairness(data, pairs, temperature=10.0)
    assert soft.unfairness < individual_unfairness(data, pairs).unfairness / 3
    labels = [
        individual_unfairness(data, pairs, output="labels", temperature=t).unfairness
        for t in (1.0, 10.0)
    ]
    assert labels[0] == labels[1]


def test_rows_of_a_table_are_found_by_id():
    pairs, data = sample_pairs(space()), table()
    shuffled = data.sample(frac=1, random_state=0)
    assert individual_unfairness(shuffled, pairs) == individual_unfairness(data, pairs)


def test_near_duplicates_are_floored_and_counted():
    vectors = np.array([[1.0, 0.0], [1.0, 1e-9], [0.0, 1.0]])
    pairs = sample_pairs(FeatureSpace("factors", np.arange(3), vectors), floor=0.05)
    assert pairs.floored == 1
    assert pairs.distance.min() == 0.05


def test_pairs_are_distinct_seeded_and_of_two_examples():
    features = space(n=200)
    pairs, again = sample_pairs(features, count=5000), sample_pairs(features, count=5000)
    other = sample_pairs(features, count=5000, seed=1)
    assert len({*zip(pairs.first, pairs.second, strict=True)}) == 5000
    assert np.all(pairs.first < pairs.second)
    assert np.array_equal(pairs.first, again.first)
    assert not np.array_equal(pairs.first, other.first)


def test_consistency_is_the_share_of_neighbours_with_the_same_label():
    angles = np.deg2rad([0, 1, 2, 90, 91, 93])
    features = FeatureSpace("circle", np.arange(6), np.stack([np.cos(angles), np.sin(angles)], 1))
    neighbours = nearest_neighbours(features, k=2)
    data = table(n=6).drop(columns="logits")
    assert consistency(data.assign(prediction=[0, 0, 0, 1, 1, 1]), neighbours) == 1.0
    # each of the first three has one of its two neighbours wrong, the middle one both
    assert consistency(data.assign(prediction=[0, 1, 0, 1, 1, 1]), neighbours) == pytest.approx(
        1 - 4 / 12
    )


def test_space_may_hold_fewer_examples_than_the_table():
    pairs = sample_pairs(space(n=5))
    data = table()
    part = individual_unfairness(data.iloc[:5], pairs)
    assert individual_unfairness(data, pairs) == part


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "vector of id 1 is zero"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "not finite"),
        (np.ones((3, 2)), "shape"),
    ],
)
def test_bad_feature_vectors_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        FeatureSpace("factors", np.arange(2), vectors)


@pytest.mark.parametrize("arguments", [{"count": 0}, {"floor": 0.0}, {"floor": 2.5}])
def test_bad_sampling_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is"):
        sample_pairs(space(), **arguments)


def test_missing_examples_unknown_outputs_and_too_many_neighbours_are_refused():
    pairs, data = sample_pairs(space()), table()
    with pytest.raises(ValueError, match="id 11 of feature space 'factors' is not in the table"):
        individual_unfairness(data.iloc[:11], pairs)
    with pytest.raises(ValueError, match="output is 'logits'"):
        individual_unfairness(data, pairs, output="logits")
    with pytest.raises(ValueError, match="k is 12"):
        nearest_neighbours(space(), k=12)


def test_factors_are_similar_as_their_values_are() -> None:
    table = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "label": 0,
            "prediction": 0,
            "shape": ["star", "star", "tee"],
            "angle": [0.0, 90.0, 45.0],
        }
    )
    space = factor_space(table, ["shape", "angle"], "drawings")
    assert space.name == "generating factors of drawings (shape, angle)"
    unit = space.vectors / np.linalg.norm(space.vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[0, 1] == pytest.approx(0.5)  # the same shape, opposite angles
    assert cosine[0, 2] == pytest.approx(np.cos(np.pi / 4) / 2)
    assert np.diag(cosine) == pytest.approx(1)


def test_a_factor_that_never_varies_is_no_obstacle() -> None:
    table = pd.DataFrame(
        {"id": [1, 2], "label": 0, "prediction": 0, "size": [3.0, 3.0], "shape": ["star", "tee"]}
    )
    assert np.isfinite(factor_space(table, ["size", "shape"], "x").vectors).all()


@pytest.mark.parametrize(("columns", "said"), [([], "columns are empty"), (["zz"], "column 'zz'")])
def test_factors_have_to_be_columns(columns, said):
    table = pd.DataFrame({"id": [0, 1], "label": 0, "prediction": 0, "size": [0.5, 1.0]})
    with pytest.raises(ValueError, match=said):
        factor_space(table, columns)
