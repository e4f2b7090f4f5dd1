"""The facts of a card: the model, its measurements, and its reference."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import pandas as pd

from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.tables import attribute_name
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import HIGHER_IS_FAIRER
from kdplatform.study.gate_metrics import GateMeasures, GateMetric, gate_metrics
from kdplatform.study.groups import BETTER, UNDECIDED, WORSE
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import ACCURACY, CONSISTENCY, WORST_CLASS_ACCURACY
from kdplatform.study.provenance import Provenance, versions
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict, by_interval

NOT_MEASURED = "not measured"
_HIGHER = {ACCURACY, WORST_CLASS_ACCURACY, CONSISTENCY}
_OF_GROUPS = ("eod", "dpd", "accuracy_gap", "worst_group_accuracy")
_SIGNS = {Verdict.SUPPORTED: BETTER, Verdict.CONTRADICTED: WORSE}


@dataclass(frozen=True)
class Fact:
    """One metric of the model, and its change against the reference.

    Attributes:
        metric: its name, such as `fairness/color/eod`.
        value: with its 95% interval; NaN if unknown.
        better: 1 if a higher value is better, -1 if a lower one is, 0 if neither is.
        attribute: the attribute of its groups; empty for a metric without groups.
        bounds: the smallest and largest possible value; None if there is none.
        spelled: its name as a person writes it.
    """

    metric: str
    value: Interval
    change: Interval
    better: int
    attribute: str = ""
    bounds: tuple[float, float | None] = (0.0, 1.0)
    spelled: str = ""

    @property
    def title(self) -> str:
        """The name of the metric for readers."""
        return self.spelled or self.metric

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the interval of the change excludes 0, else `undecided`."""
        if not self.better:
            return UNDECIDED
        return _SIGNS.get(by_interval(self.better, self.change), UNDECIDED)


@dataclass(frozen=True)
class CardFacts:
    """All facts from which the cards of one model are made.

    Attributes:
        name: name of the model, such as `digits DS T=4`.
        slug: the name with only letters, digits, dots and dashes.
        role: what the model is, in words.
        reference: the model that it is compared with, in words.
        base_model: the model that it was distilled from; empty for a side of a comparison.
        task: name of the task on model hubs.
        dataset: name of the data.
        examples: number of test examples.
        digest: digest of their ids and labels.
        seeds: number of models, one per seed.
        facts: the known metrics.
        groups: rows of the group shifts, as `GroupShifts.table`; empty without attributes.
        settings: how the model was made, by name.
        findings: sentences.
        cautions: warnings for the reader.
        provenance: digests, thresholds and versions, if they are known.
        library: library that loads the model; empty if it is not known.
    """

    name: str
    slug: str
    role: str
    reference: str
    base_model: str
    task: str
    dataset: str
    examples: int
    digest: str
    classes: Sequence[str]
    seeds: int
    facts: Sequence[Fact]
    groups: pd.DataFrame
    settings: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[str] = ()
    cautions: Sequence[str] = ()
    provenance: Provenance | None = None
    library: str = ""

    @property
    def gate_sentence(self) -> str:
        """The outcome of the gate; empty without a gate."""
        gate = None if self.provenance is None else self.provenance.gate
        return "" if gate is None else gate.sentence

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that computed the numbers."""
        return versions()

    def of_verdict(self, verdict: str) -> list[Fact]:
        """The metrics whose change has this verdict."""
        judged = [fact for fact in self.facts if fact.better and known(fact.change.estimate)]
        return [fact for fact in judged if fact.verdict == verdict]

    def groups_of(self, verdict: str) -> list[dict[str, object]]:
        """The groups and intersections whose accuracy has this verdict."""
        if self.groups.empty:
            return []
        whole = self.groups["kind"] != "group within class"
        rows = self.groups[whole & (self.groups["verdict"] == verdict)]
        return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def known(value: float) -> bool:
    """Returns whether a number was measured."""
    return math.isfinite(value)


def facts_of(study: Study, arm: Arm, reference: Arm) -> tuple[list[Fact], pd.DataFrame]:
    """Measures an arm of a study against a reference.

    Returns:
        The metrics that are known, and the table of the groups.
    """
    classes = ClassWise(study)
    groups = cache(lambda: GroupWise(study))
    measures = GateMeasures(study, classes, groups, arm, reference)
    facts = []
    for metric in _shown(gate_metrics(study.attributes, [Role(reference.role)]).values()):
        found = measures.measured(metric, with_interval=metric.has_interval)
        if known(found.value.estimate):
            name = "" if metric.attribute is None else attribute_name(metric.attribute)
            bounds = (0.0, 1.0) if metric.is_fraction else (0.0, None)
            facts.append(
                Fact(
                    metric.name,
                    found.value,
                    found.change,
                    _better(metric),
                    name,
                    bounds,
                    metric.spelled,
                )
            )
    compared = groups().tests.get((arm, reference.role)) if study.attributes else None
    return facts, pd.DataFrame() if compared is None else compared.table


def _shown(metrics: Iterable[GateMetric]) -> list[GateMetric]:
    return [
        metric
        for metric in metrics
        if metric.attribute is None or metric.name.rpartition("/")[2] in _OF_GROUPS
    ]


def _better(metric: GateMetric) -> int:
    if not metric.has_change:
        return 0
    higher = metric.name in _HIGHER or metric.name.rpartition("/")[2] in HIGHER_IS_FAIRER
    return 1 if higher else -1
