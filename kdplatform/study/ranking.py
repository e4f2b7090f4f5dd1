"""Ranking metrics of models with many classes, under the names that runs and studies share.

Classes are divided into two strata with about equally many training examples. Stratum 1 has the
most frequent classes: the popular items of a recommender, the head of a long tail.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kdplatform.analysis.ranking import (
    CUTOFFS,
    exposure,
    gini,
    label_ranks,
    ranking_scores,
    top_places,
)
from kdplatform.analysis.tables import Attribute, attribute_groups, attribute_name
from kdplatform.predictions import IntArray, Predictions
from kdplatform.strata import strata_by_frequency
from kdplatform.study.metrics import in_metric_name

# Rankings are measured only above this number of classes.
MANY_CLASSES = 50
STRATA = 2
K = CUTOFFS[0]
MRR = "ranking/mrr"
GINI = f"ranking/gini_at_{K}"


class Ranked(NamedTuple):
    """The strata and attributes by which rankings are broken down.

    Attributes:
        class_counts: training examples of each class; empty if they are not known.
        attributes: the attributes whose groups are measured.
        min_group_size: examples that a group or stratum needs to be measured.
    """

    class_counts: Sequence[int] = ()
    attributes: Sequence[Attribute] = ()
    min_group_size: int = 1


def recall_metric(k: int = K) -> str:
    """Returns the name of the share of examples whose label is among the first k classes."""
    return f"ranking/recall_at_{k}"


def ndcg_metric(k: int = K) -> str:
    """Returns the name of the mean discounted gain of the label among the first k classes."""
    return f"ranking/ndcg_at_{k}"


def stratum_metric(stratum: int, name: str) -> str:
    """Returns the name of a stratum's metric, counted from 1.

    `recall_at_10` and `ndcg_at_10` are of the examples whose label is in the stratum;
    `places_at_10` is the share of all top places that its classes have, `training` their share of
    the training examples.
    """
    return f"ranking/stratum_{stratum}/{name}"


def group_metric(attribute: Attribute, group: str, name: str) -> str:
    """Returns the name of a group's `recall_at_10` or `ndcg_at_10`."""
    of = "/".join(in_metric_name(part) for part in (attribute_name(attribute), group))
    return f"ranking/{of}/{name}"


def class_strata(class_counts: Sequence[int]) -> list[list[int]]:
    """Returns the strata of classes; none if frequencies are equal or unknown."""
    if not len(class_counts) or min(class_counts) == max(class_counts):
        return []
    return strata_by_frequency(class_counts, STRATA)


def ranking_metrics(test: Predictions, ranked: Ranked) -> dict[str, float]:
    """Returns the ranking metrics of one model; empty with few classes, or without logits."""
    if test.logits is None or test.n_classes <= MANY_CLASSES:
        return {}
    ranks, places = label_ranks(test), top_places(test, K)
    scores = ranking_scores(ranks)
    metrics = {recall_metric(k): value for k, value in scores.recall.items()}
    metrics |= {ndcg_metric(k): value for k, value in scores.ndcg.items()}
    metrics |= {MRR: scores.mrr, GINI: gini(places)}
    strata = class_strata(ranked.class_counts)
    if strata:
        shares = exposure(places, ranked.class_counts, strata).set_index("stratum")
        for number, own in enumerate(strata, start=1):
            chosen = np.isin(test.labels, own)
            if chosen.sum() >= ranked.min_group_size:
                metrics |= {
                    stratum_metric(number, name): value for name, value in _of(ranks[chosen])
                }
            metrics[stratum_metric(number, f"places_at_{K}")] = float(shares["places"][number])
            metrics[stratum_metric(number, "training")] = float(shares["training"][number])
    for attribute in ranked.attributes:
        groups = attribute_groups(test, attribute)
        for place, group in enumerate(groups.names):
            chosen = np.append(groups.members[:, place], False)[groups.codes]
            if chosen.sum() >= ranked.min_group_size:
                metrics |= {
                    group_metric(attribute, group, name): value
                    for name, value in _of(ranks[chosen])
                }
    return metrics


def _of(ranks: IntArray) -> Iterator[tuple[str, float]]:
    scores = ranking_scores(ranks, [K])
    yield f"recall_at_{K}", scores.recall[K]
    yield f"ndcg_at_{K}", scores.ndcg[K]
