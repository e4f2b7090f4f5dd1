"""What a trial is judged by, from validation predictions alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.individual_fairness import Pairs, individual_unfairness
from kdplatform.analysis.significance import mcnemar_by_class, significance_counts
from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.experiments.workspace import unknown_attribute
from kdplatform.predictions import Predictions
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.factors import GENERATING_FACTORS
from kdplatform.study.metrics import similarity

_OF_GROUPS = ("eod", "dpd", "accuracy_gap")
_OF_ANY_DATA = ("n_sc",)
_WORDS = {
    "eod": "EOD {}",
    "dpd": "DPD {}",
    "accuracy_gap": "accuracy gap {}",
    "individual": "individual unfairness",
    "n_sc": "n_sc",
}


@dataclass(frozen=True)
class Score:
    """What one student gives on one split; NaN where it is not defined.

    Attributes:
        worst_group_accuracy: NaN without an attribute.
        note: why something is not defined.
    """

    accuracy: float
    unfairness: float
    worst_group_accuracy: float
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """The unfairness that is searched, and of which attribute.

    Attributes:
        attribute: None where the project has none; then nothing of groups is measured.
        min_group_size: examples a group needs to be measured.
    """

    unfairness: str
    attribute: str | None
    classes: int
    dataset: str
    min_group_size: int

    @property
    def label(self) -> str:
        """The unfairness in words."""
        return _WORDS[self.unfairness].format(self.attribute)

    @cached_property
    def slug(self) -> str:
        """The unfairness as part of a name."""
        of_groups = self.unfairness in _OF_GROUPS
        return f"{self.unfairness}-{self.attribute}" if of_groups else self.unfairness

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction, which is shown in per cent."""
        return self.unfairness in _OF_GROUPS

    @property
    def largest(self) -> float | None:
        """The largest value there can be; None where nothing bounds it."""
        if self.unfairness == "individual":
            return None
        return 1.0 if self.is_share else float(self.classes)

    def score(self, table: Predictions, student: Predictions, pairs: Pairs | None) -> Score:
        """Judges one model.

        Args:
            table: its predictions.
            student: those of the NDS of its seed on the same split, with which n_sc compares.
            pairs: as `pairs` gives them for the split.
        """
        size, groups = self.min_group_size, None
        if self.attribute:
            groups = fairness_metrics(table, self.attribute, min_group_size=size)
        note = ""
        if self.unfairness == "n_sc":
            compared = mcnemar_by_class(student, table, n_classes=self.classes)
            unfairness = float(significance_counts(compared).significant)
        elif self.unfairness == "individual":
            assert pairs is not None
            unfairness = individual_unfairness(table, pairs).unfairness
        else:
            assert groups is not None
            unfairness, note = float(getattr(groups, self.unfairness)), groups.note
        worst = groups.worst_group_accuracy if groups else float("nan")
        return Score(table.accuracy, unfairness, worst, note)

    def pairs(self, table: Predictions) -> Pairs | None:
        """Returns the pairs of examples of a split that individual unfairness is measured on."""
        similar = similarity(table, self.dataset) if self.unfairness == "individual" else None
        return None if similar is None else similar.pairs


def open_measure(config: ProjectConfig, dataset: Dataset) -> Measure:
    """Returns what the project's `tuning:` block asks for.

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
        raise UserError(
            f"unfairness={tuning.unfairness!r} needs {lacks}, and project {config.name} has none; "
            f"allowed: {' | '.join(possible)}"
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
    )
    _check_groups(measure, dataset)
    return measure


def _check_groups(measure: Measure, dataset: Dataset) -> None:
    """Raises a UserError where the validation split's groups are too small for what is searched."""
    if measure.attribute is None or not measure.is_share:
        return
    labels, split = dataset.val.labels.cpu().numpy(), dataset.val
    truth = Predictions(split.ids, labels, labels, None, split.columns.reset_index(drop=True))
    size = measure.min_group_size
    found = fairness_metrics(truth, measure.attribute, min_group_size=size)
    if np.isnan(getattr(found, measure.unfairness)):
        raise UserError(
            f"min_group_size={size} leaves no {measure.label} on validation data ({found.note}); "
            "allowed: a smaller min_group_size, or another unfairness"
        )


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
        raise unknown_attribute("attribute", name, dataset)
    return name


def mean_score(scores: Sequence[Score]) -> Score:
    """Returns the mean over seeds; what one seed leaves undefined stays undefined."""
    notes = [f"seed {seed}: {score.note}" for seed, score in enumerate(scores) if score.note]
    return Score(
        float(np.mean([score.accuracy for score in scores])),
        float(np.mean([score.unfairness for score in scores])),
        float(np.mean([score.worst_group_accuracy for score in scores])),
        "; ".join(notes),
    )
