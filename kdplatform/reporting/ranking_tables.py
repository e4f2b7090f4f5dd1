"""The tables of ranking: the ranks of labels, and the classes that fill the top places."""

from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.ranking import CUTOFFS
from kdplatform.analysis.tables import attribute_groups, attribute_name
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    first_columns,
    number_words,
    table_of,
)
from kdplatform.study.ranking import (
    GINI,
    MRR,
    STRATA,
    K,
    group_metric,
    ndcg_metric,
    recall_metric,
    stratum_metric,
)
from kdplatform.study.ranking_changes import change, reference_of
from kdplatform.study.study import NDS, Arm, Study

_OF_A_PART = {f"recall_at_{K}": f"recall@{K}", f"ndcg_at_{K}": f"NDCG@{K}"}
_CHANGED = (recall_metric(), ndcg_metric(), GINI)
_DIFFERENCES = (
    "Differences: mean over the common seeds, with the 95% interval of the paired difference over "
    "seeds, on these test examples."
)


def ranking_tables(study: Study) -> list[Table]:
    """Returns the tables of a study of many classes; none if no model has a ranking."""
    if MRR not in study.metrics:
        return []
    tables = [_scores(study)]
    if stratum_metric(1, "training") in study.metrics:
        tables.append(_exposure(study))
    if study.attributes:
        tables.append(_groups(study))
    return tables


def _scores(study: Study) -> Table:
    """Recall, NDCG, MRR and Gini of every arm, and the differences of DS from NDS."""
    names = {recall_metric(k): f"recall@{k}" for k in CUTOFFS}
    names |= {ndcg_metric(k): f"NDCG@{k}" for k in CUTOFFS}
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        for metric in (*names, MRR, GINI):
            row.add_seeds(metric, study.values(arm, metric))
        if arm in study.distilled and NDS in study.arms:
            for metric in _CHANGED:
                _add_change(row, metric, change(study, metric, arm, NDS), "sc")
        rows.append(row)
    groups = [
        ("", {"arm": "", "seeds": "seeds", "accuracy": "accuracy, %"}),
        ("rank of the label, %", {**names, MRR: "MRR"}),
        (f"top {K} places, %", {GINI: "Gini"}),
        (
            "DS minus NDS, points",
            {
                f"{recall_metric()}_change_sc": f"recall@{K}",
                f"{ndcg_metric()}_change_sc": f"NDCG@{K}",
                f"{GINI}_change_sc": "Gini",
            },
        ),
    ]
    return table_of(
        "ranking",
        "Ranking of the labels among all classes",
        rows,
        groups,
        [
            "Recall@k: share of examples whose label is among the first k classes (top-k accuracy, "
            "one held-out item of a recommender). NDCG@k: mean of 1 / log2(1 + rank) up to rank k. "
            "MRR: mean of 1 / rank. A class with the same logit as the label ranks before the "
            "label.",
            f"Gini: how unequally classes share the top {K} places: 0 if equally, 100 if one class "
            "has all. Items that a user took before are in no top place.",
            _DIFFERENCES,
        ],
    )


def _exposure(study: Study) -> Table:
    """Share of the top places of each stratum, with its share of training examples."""
    places = f"places_at_{K}"
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        other = reference_of(study, arm) if arm in study.distilled else None
        row.words["against"] = "" if other is None else study.names[other].removeprefix("DS ")
        for stratum in range(1, STRATA + 1):
            for name in ("training", places, *_OF_A_PART):
                metric = stratum_metric(stratum, name)
                row.add_seeds(metric, study.values(arm, metric))
            training = study.values(arm, stratum_metric(stratum, "training"))
            metric = stratum_metric(stratum, "training")
            row.words[metric] = number_words(float(training.mean()), 2, 100)
            if arm in study.distilled and NDS in study.arms:
                metric = stratum_metric(stratum, places)
                _add_change(row, metric, change(study, metric, arm, NDS), "sc")
        if other is not None:
            metric = stratum_metric(1, places)
            _add_change(row, metric, change(study, metric, arm, other), "method")
        rows.append(row)
    groups: list[tuple[str, dict[str, str]]] = [("", {"arm": "", "seeds": "seeds"})]
    for stratum in range(1, STRATA + 1):
        columns = {
            "training": "of training",
            places: f"of top {K}",
            f"{places}_change_sc": "minus NDS",
            **_OF_A_PART,
        }
        words = {1: ", the most frequent"}.get(stratum, "")
        groups.append(
            (
                f"stratum {stratum}{words}, %",
                {stratum_metric(stratum, name): label for name, label in columns.items()},
            )
        )
    if any(row.words["against"] for row in rows):
        metric = stratum_metric(1, places)
        groups.append(
            (
                f"stratum 1, share of top {K}",
                {"against": "against", f"{metric}_change_method": "minus it"},
            )
        )
    return table_of(
        "exposure",
        f"Exposure: who has the top {K} places",
        rows,
        groups,
        [
            f"Strata: the classes, from the most frequent down, are cut into {STRATA} strata with "
            "about equally many training examples. A stratum is over-recommended if its share of "
            "the places is larger than its share of training.",
            "Recall and NDCG of a stratum are those of the examples whose label is in it.",
            _DIFFERENCES,
        ],
    )


def _groups(study: Study) -> Table:
    """Recall and NDCG of each group of each attribute."""
    rows = []
    for attribute in study.attributes:
        for group in attribute_groups(study.any_table, attribute).names:
            for arm in study.arms:
                row = _group_row(study, arm, attribute_name(attribute), group)
                for name in _OF_A_PART:
                    row.add_seeds(name, study.values(arm, group_metric(attribute, group, name)))
                rows.append(row)
    groups = [
        ("", {"attribute": "attribute", "group": "group", "arm": "arm"}),
        ("rank of the label, %", dict(_OF_A_PART)),
    ]
    return table_of(
        "ranking_groups",
        "Ranking of the labels by group",
        rows,
        groups,
        [f"Groups of fewer than {study.min_group_size} test examples are not measured."],
    )


def _group_row(study: Study, arm: Arm, attribute: str, group: str) -> Row:
    words = {"attribute": attribute, "group": group, "arm": study.names[arm]}
    return Row(dict(words), words)


def _add_change(row: Row, metric: str, interval: Interval, suffix: str) -> None:
    name = f"{metric}_change_{suffix}"
    row.numbers |= interval.columns(name)
    row.words[name] = change_words(interval)
