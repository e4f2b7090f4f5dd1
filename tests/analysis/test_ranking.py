"""Ranks of labels and the top places: by hand, and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from kdplatform.analysis.ranking import exposure, gini, label_ranks, ranking_scores, top_places
from kdplatform.data import OUT_OF_THE_RUNNING
from kdplatform.predictions import Predictions


def table(examples: int = 200, classes: int = 60, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(examples, classes)).astype(np.float32)
    labels = random.integers(0, classes, examples)
    columns = pd.DataFrame(index=range(examples))
    return Predictions(np.arange(examples), labels, logits.argmax(1), logits, columns)


@pytest.mark.parametrize("k", [1, 10, 20])
def test_recall_and_ndcg_are_scikit_learns(k: int) -> None:
    own = table()
    scores = ranking_scores(label_ranks(own), [k])
    known = np.arange(60)
    expected = top_k_accuracy_score(own.labels, own.logits, k=k, labels=known)
    assert scores.recall[k] == pytest.approx(expected)
    relevant = own.labels[:, None] == known
    assert scores.ndcg[k] == pytest.approx(ndcg_score(relevant, own.logits, k=k))


def test_recall_at_one_is_accuracy() -> None:
    own = table()
    assert ranking_scores(label_ranks(own), [1]).recall[1] == own.accuracy


def test_a_model_of_equal_logits_finds_nothing() -> None:
    own = table()
    flat = Predictions(
        own.ids, own.labels, np.zeros_like(own.labels), np.zeros_like(own.logits), own.columns
    )
    scores = ranking_scores(label_ranks(flat))
    assert set(label_ranks(flat)) == {60}
    assert set(scores.recall.values()) == {0.0}
    assert scores.mrr == pytest.approx(1 / 60)


def test_what_is_out_of_the_running_has_no_place() -> None:
    own = table(1, 5)
    assert own.logits is not None
    own.logits[0] = [3, OUT_OF_THE_RUNNING, 2, OUT_OF_THE_RUNNING, 1]
    assert top_places(own, 4).tolist() == [1, 0, 1, 0, 1]
    assert top_places(own, 2).tolist() == [1, 0, 1, 0, 0]


def test_every_example_gives_k_places_and_the_best_are_taken() -> None:
    own = table()
    places = top_places(own, 10)
    assert places.sum() == 10 * 200
    assert top_places(own, 1).tolist() == np.bincount(own.predictions, minlength=60).tolist()


@pytest.mark.parametrize(("n", "share"), [(4, 0.0), (4, 0.75), (100, 0.99)])
def test_gini_of_equal_shares_is_0_and_of_a_single_class_1_less_its_share(
    n: int, share: float
) -> None:
    counts = np.zeros(n, dtype=int) if share else np.full(n, 7)
    counts[0] = 7
    assert gini(counts) == pytest.approx(share)


def test_gini_is_half_the_relative_mean_difference() -> None:
    counts = np.random.default_rng(0).poisson(5, 50)
    differences = np.abs(counts[:, None] - counts).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_exposure_holds_places_against_training() -> None:
    found = exposure(np.array([8, 0, 1, 1]), [50, 10, 20, 20], [[0], [1, 2, 3]])
    assert found["classes"].tolist() == [1, 3]
    assert found["training"].tolist() == [0.5, 0.5]
    assert found["places"].tolist() == [0.8, 0.2]


def test_without_examples_there_is_no_score() -> None:
    scores = ranking_scores(np.empty(0, dtype=np.int64))
    assert np.isnan([*scores.recall.values(), *scores.ndcg.values(), scores.mrr]).all()


def test_without_logits_there_is_no_rank() -> None:
    own = table()
    bare = Predictions(own.ids, own.labels, own.predictions, None, own.columns)
    with pytest.raises(ValueError, match="lacks column 'logits'"):
        label_ranks(bare)


@pytest.mark.parametrize("k", [1, 10, 80])
def test_of_equal_logits_the_lowest_numbers_come_first(k: int) -> None:
    logits = np.random.default_rng(0).integers(0, 8, (50, 60)).astype(np.float32)
    logits[:, 7] = OUT_OF_THE_RUNNING
    labels = np.zeros(50, dtype=np.int64)
    columns = pd.DataFrame(index=range(50))
    ties = Predictions(np.arange(50), labels, logits.argmax(1), logits, columns)
    first = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = np.bincount(first[first != 7], minlength=60)
    assert np.array_equal(top_places(ties, k), expected)
