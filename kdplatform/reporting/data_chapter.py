"""The chapter on the data: groups with their sizes, shares and base rates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kdplatform.analysis.group_fairness import fairness_metrics, group_table, rates_by_class
from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.predictions import Predictions
from kdplatform.reporting.page import Section
from kdplatform.reporting.report_table import Row, file_stem, number_words, table_of
from kdplatform.reporting.tables import EMPTY
from kdplatform.study.claims import counted


def data_chapter(
    examples: Predictions,
    attributes: Sequence[Attribute],
    class_names: Sequence[str],
    min_group_size: int,
    positive: int | None = None,
) -> Section:
    """Lists the groups of every attribute; intersections are folded.

    Args:
        examples: any table; its predictions are not used.
        positive: number of the class whose base rate is shown; None: class 1 of two.
    """
    title = "Who is in the data"
    truth = replace(examples, predictions=examples.labels)
    present = len(np.unique(truth.labels))
    lead = (
        f"{counted(len(truth), 'example')} of {present} {'class' if present == 1 else 'classes'}, "
        f"digest {truth.digest}."
    )
    if not attributes:
        return Section(title, [lead, "No attribute is compared, so no group is known."])
    rule = (
        f"A group of fewer than {min_group_size} examples is not measured, because a rate over so "
        "few is chance."
    )
    single = [a for a in attributes if isinstance(a, str)]
    crossed = [a for a in attributes if not isinstance(a, str)]
    parts = [_attribute(truth, a, class_names, min_group_size, positive) for a in single]
    if crossed:
        inner = [_attribute(truth, a, class_names, min_group_size, positive) for a in crossed]
        parts.append(Section("Intersections", parts=inner, folded=True))
    return Section(title, [lead, rule], parts=parts)


def _attribute(
    truth: Predictions,
    attribute: Attribute,
    class_names: Sequence[str],
    size: int,
    positive: int | None,
) -> Section:
    name = attribute_name(attribute)
    groups = group_table(truth, attribute, min_group_size=size)
    facts = fairness_metrics(truth, attribute, min_group_size=size)
    rates = rates_by_class(truth, attribute, min_group_size=1)
    shown = 1 if positive is None and facts.classes == 2 else positive
    rows = list(_rows(groups, rates, class_names, size, shown))
    base = "most frequent class"
    if shown is not None:
        base = f"base rate of {_named(class_names, shown)}, %"
    columns = {"group": "", "n": "n", "share": "share, %", "base": base, "measured": "measured"}
    table = table_of(f"data_{file_stem(name)}", f"Groups by {name}", rows, [("", columns)])
    notes = [f"{facts.excluded} examples are in no group."] if facts.excluded else []
    if facts.shared:
        notes.append(f"{facts.shared} examples are in several groups and count in each.")
    return Section("", tables=[replace(table, notes=notes)])


def _rows(
    groups: pd.DataFrame,
    rates: pd.DataFrame,
    class_names: Sequence[str],
    size: int,
    shown: int | None,
) -> Iterator[Row]:
    for own in groups.to_dict("records"):
        of_group = rates[rates["group"] == own["group"]]
        if shown is not None:
            base = float(of_group.loc[of_group["class"] == shown, "selection_rate"].iloc[0])
            words = number_words(base, 1, 100)
            numbers: dict[str, object] = {"base_rate": base}
        else:
            most = of_group.loc[of_group["positives"].idxmax()]
            share = float(most["positives"]) / max(1, int(own["n"]))
            frequent = _named(class_names, int(most["class"]))
            words = f"{frequent} ({number_words(share, 1, 100)}%)" if own["n"] else EMPTY
            numbers = {"most_frequent_class": frequent, "its_share": share}
        measured = int(own["n"]) >= size
        yield Row(
            {
                "group": own["group"],
                "n": int(own["n"]),
                "share": own["share"],
                **numbers,
                "measured": measured,
            },
            {
                "group": str(own["group"]),
                "n": str(int(own["n"])),
                "share": number_words(own["share"], 1, 100),
                "base": words,
                "measured": "yes" if measured else "too small",
            },
        )


def _named(class_names: Sequence[str], number: int) -> str:
    return class_names[number] if number < len(class_names) else str(number)
