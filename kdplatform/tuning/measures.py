"""The measures of a trial, from validation predictions alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from kdplatform.analysis.collapse import collapse_of
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.tables import attribute_groups
from kdplatform.data import Dataset, Split, unknown_attribute
from kdplatform.errors import UserError
from kdplatform.predictions import Predictions
from kdplatform.progress import say
from kdplatform.reporting.tables import EMPTY
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.factors import GENERATING_FACTORS
from kdplatform.study.metrics import (
    ACCURACY,
    INDIVIDUAL,
    Similarity,
    class_count,
    fairness_metric,
    group_count,
    group_notes,
    individual_metrics,
    pair_metrics,
    similarity,
)
from kdplatform.study.study import NDS, Arm, Model, Study
from kdplatform.text import visible

_SHARES = ("eod", "dpd", "accuracy_gap")
_OF_GROUPS = (*_SHARES, "n_sg")
_OF_ANY_DATA = ("n_sc",)
_WORDS = {
    "eod": "EOD {}",
    "dpd": "DPD {}",
    "accuracy_gap": "accuracy gap {}",
    "individual": "individual unfairness",
    "n_sc": "n_sc",
    "n_sg": "n_sg {}",
}
# What is said of a model, whatever unfairness is searched.
MEASURES = ("accuracy", "unfairness", "worst_group_accuracy")


@dataclass(frozen=True)
class Measure:
    """The unfairness that is searched, and of which attribute.

    Attributes:
        attribute: None if the project has none; then no group is measured.
        min_group_size: examples a group needs to be measured.
        groups: how many the attribute has on validation data.
    """

    unfairness: str
    attribute: str | None
    classes: int
    dataset: str
    min_group_size: int
    groups: int = 0

    @property
    def label(self) -> str:
        """The unfairness in words."""
        return _WORDS[self.unfairness].format(visible(self.attribute))

    @cached_property
    def slug(self) -> str:
        """The unfairness as part of a name."""
        of_groups = self.unfairness in _OF_GROUPS
        return f"{self.unfairness}-{self.attribute}" if of_groups else self.unfairness

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction, which is shown in per cent."""
        return self.unfairness in _SHARES

    @property
    def largest(self) -> float:
        """The largest possible value; infinite if there is no bound."""
        if self.unfairness == "individual":
            return np.inf
        if self.unfairness == "n_sg":
            return float(self.groups)
        return 1.0 if self.is_share else float(self.classes)

    @property
    def metric(self) -> str:
        """The unfairness by its name in `Study.metrics`."""
        if self.unfairness == "n_sc":
            return class_count(Role.STUDENT)
        if self.unfairness == "n_sg":
            return group_count(Role.STUDENT)
        if self.unfairness == "individual":
            return INDIVIDUAL
        return fairness_metric(str(self.attribute), self.unfairness)

    def shown(self, value: float) -> str:
        """Returns a value of the unfairness for tables: fractions in per cent."""
        if np.isnan(value):
            return EMPTY
        return f"{100 * value:.2f}" if self.is_share else f"{value:.3g}"

    def similarity(self, table: Predictions) -> Similarity | None:
        """Returns the pairs of examples of a split for individual unfairness."""
        return similarity(table, self.dataset) if self.unfairness == "individual" else None

    def notes(self, tables: Iterable[Predictions]) -> str:
        """Says by seed which groups of a split are too small to be measured."""
        attributes = () if self.attribute is None else (self.attribute,)
        notes = (group_notes(table, attributes, self.min_group_size) for table in tables)
        return "; ".join(f"seed {i}: {note}" for i, found in enumerate(notes) for note in found)

    def scores(
        self, arms: Mapping[Arm, Mapping[int, Predictions]], similar: Similarity | None
    ) -> pd.DataFrame:
        """Judges models on one split, as a study of them.

        Teacher and NDS are compared with the NDS of their seed as the students are, in `n_sc` and
        `n_sg` too.

        Args:
            arms: predictions by arm and seed; the NDS of every seed among them.
            similar: as `similarity` gives it for the split.

        Returns:
            One row per model, in the order given: `role`, `seed` and `MEASURES`, NaN where one is
            not defined.
        """
        attributes = () if self.attribute is None else (self.attribute,)
        models: dict[Arm, dict[int, Model]] = {}
        for arm, tables in arms.items():
            models[arm] = {}
            for seed, table in tables.items():
                measured = individual_metrics(table, similar)
                if arm.role is not Role.DISTILLED:
                    nds = arms[NDS][seed]
                    measured |= pair_metrics(
                        Role.STUDENT, nds, table, self.classes, attributes, self.min_group_size
                    )
                models[arm][seed] = Model("", table, measured)
        classes = tuple(map(str, range(self.classes)))
        study = Study("", classes, models, attributes, self.min_group_size)
        columns = {ACCURACY: "accuracy", self.metric: "unfairness"}
        if self.attribute is not None:
            columns[fairness_metric(self.attribute, MEASURES[2])] = MEASURES[2]
        found = study.metrics.rename(columns=columns).reindex(columns=["role", "seed", *MEASURES])
        return found.astype(dict.fromkeys(MEASURES, float))

    def collapsed(self, tables: Iterable[Predictions], students: Iterable[Predictions]) -> int:
        """Counts the signs that models learnt nothing: the most that a seed has.

        A model that is right no more often than chance is one sign, and so is each class that it
        never predicts, or never in a group. What the NDS of its seed never predicts either is none:
        where no model can, nothing would be left to search.

        Args:
            students: the NDS of each table's seed.
        """
        attributes = () if self.attribute is None else (self.attribute,)
        found = [0]
        for table, student in zip(tables, students, strict=True):
            own, nds = (
                collapse_of(each, attributes, self.min_group_size) for each in (table, student)
            )
            classes = set(own.never) - set(nds.never)
            groups = set(own.never_in_groups) - set(nds.never_in_groups)
            found.append(int(own.no_better) + len(classes) + len(groups))
        return max(found)


def means(scores: pd.DataFrame) -> list[float]:
    """Returns the means of `MEASURES`. A value that is undefined for one seed stays undefined."""
    return [float(value) for value in scores[[*MEASURES]].mean(skipna=False)]


def open_measure(config: ProjectConfig, dataset: Dataset) -> Measure:
    """Returns the measure of the project's `tuning:` block.

    Raises:
        UserError: there is no such attribute, the unfairness or a constraint needs one that the
            project does not have, or it needs a feature space that the dataset does not have.
    """
    tuning = config.tuning
    attribute = _attribute(config, dataset)
    possible = [*(_OF_GROUPS if attribute else ()), *_OF_ANY_DATA]
    factors = GENERATING_FACTORS.get(config.dataset.name)
    if factors and set(factors) <= set(dataset.val.columns):
        possible.append("individual")
    if tuning.unfairness not in possible:
        lacks = "attributes" if tuning.unfairness in _OF_GROUPS else "a feature space"
        known = dataset.attributes if lacks == "attributes" else ()
        hint = f", or --attributes with {' | '.join(known)}" if known else ""
        raise UserError(
            f"unfairness={tuning.unfairness!r} needs {lacks}, and project {config.name} has none; "
            f"allowed: {' | '.join(possible)}{hint}"
        )
    if tuning.worst_group_floor is not None and attribute is None:
        raise UserError(
            f"tuning.worst_group_floor={tuning.worst_group_floor:g} needs attributes, and project "
            f"{config.name} has none; allowed: none"
        )
    measure = Measure(
        tuning.unfairness,
        attribute,
        len(dataset.class_names),
        config.dataset.name,
        config.min_group_size,
        _number_of_groups(attribute, dataset.val),
    )
    _check_groups(measure, dataset, confirmed=tuning.confirm_seeds > 0)
    return measure


def _check_groups(measure: Measure, dataset: Dataset, *, confirmed: bool) -> None:
    """Checks, before anything is trained, that the labels of the groups can be measured.

    Args:
        confirmed: whether the chosen points are measured on test data too.

    Raises:
        UserError: they cannot on validation data.
    """
    if measure.attribute is None or measure.unfairness not in _OF_GROUPS:
        return
    size = measure.min_group_size
    if note := _undefined(measure, dataset.val):
        raise UserError(
            f"{measure.label} is undefined on validation data with min_group_size={size} ({note}); "
            "allowed: a smaller min_group_size, or another unfairness"
        )
    if confirmed and (note := _undefined(measure, dataset.test)):
        say(f"tune: {measure.label} is undefined on test data with min_group_size={size} ({note})")


def _undefined(measure: Measure, split: Split) -> str:
    """Says why what is searched is undefined on a split, whatever a model predicts."""
    truth = _truth(split)
    found = fairness_metrics(truth, str(measure.attribute), min_group_size=measure.min_group_size)
    if measure.unfairness == "n_sg":
        return "" if found.groups else found.note
    return found.note if np.isnan(getattr(found, measure.unfairness)) else ""


def _truth(split: Split) -> Predictions:
    """Predictions that are always right, for what labels and groups alone decide."""
    labels = split.labels.cpu().numpy()
    return Predictions(split.ids, labels, labels, None, split.columns.reset_index(drop=True))


def _number_of_groups(attribute: str | None, split: Split) -> int:
    return 0 if attribute is None else len(attribute_groups(_truth(split), attribute).names)


def _attribute(config: ProjectConfig, dataset: Dataset) -> str | None:
    name = config.tuning.attribute
    if name == "auto":
        return config.attributes[0] if config.attributes else None
    if not dataset.attributes:
        raise UserError(
            f"attribute={name!r} is not allowed: project {config.name} has no attributes; "
            "allowed: auto, with an unfairness that needs none: n_sc"
        )
    if name not in dataset.attributes:
        raise unknown_attribute("attribute", name, dataset.name, dataset.attributes)
    return name
