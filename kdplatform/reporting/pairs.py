"""Two arms of a study, or two sides of a comparison, for the chapters of a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.predictions import Predictions
from kdplatform.reporting.report_table import file_stem
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.groups import GroupComparison
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.methods import USUAL_TEMPERATURE
from kdplatform.study.study import Arm, Study

SIDES = "A", "B"
# Further pairs are only in the files, because a larger page would be slow to open and to read.
_MOST_ARMS = 6
_MOST_CLASS_ROWS = 1200


@dataclass(frozen=True)
class Pair:
    """Side B compared with side A, the reference.

    Attributes:
        key: part of the names of files; empty if this is the page's only pair.
        names: names of both sides in figures and tables.
        short: names of both sides for places with little room.
        a: predictions of the reference; model i belongs to model i of `b` if both have equally
            many.
        test: the test of the classes; None if there is none.
        groups: the comparison of groups; None if there is none.
        leads: whether image files of the pair are written.
    """

    key: str
    names: tuple[str, str]
    short: tuple[str, str]
    a: Sequence[Predictions]
    b: Sequence[Predictions]
    class_names: tuple[str, ...]
    test: ClassComparison | None
    groups: GroupComparison | None
    leads: bool = True

    @property
    def title(self) -> str:
        """The pair in words."""
        return f"{self.names[1]} against {self.names[0]}"

    @property
    def sides(self) -> str:
        """Which side is A, and which is B."""
        if self.short == SIDES:
            return "; ".join(self.names)
        return f"A: {self.names[0]}; B: {self.names[1]}"

    @property
    def paired(self) -> bool:
        """Whether every model has a partner."""
        return len(self.a) == len(self.b)

    def stem(self, name: str) -> str:
        """Returns the stem of a file of this pair."""
        return f"{name}_{self.key}" if self.key else name


def usual_arm(study: Study) -> Arm:
    """The arm that a page shows first: the T nearest to the usual one, whatever its numbers."""

    def far(arm: Arm) -> float:
        return abs(math.log((arm.temperature or USUAL_TEMPERATURE) / USUAL_TEMPERATURE))

    return min(study.distilled, key=far)


def shown_arms(study: Study) -> list[Arm]:
    """The arms that a page shows, with the usual one first: all, or one of every method.

    With very many classes only the usual arm is shown.
    """
    usual, chosen = usual_arm(study), list(study.distilled)
    if len(chosen) > _MOST_ARMS:
        near = sorted(chosen, key=lambda a: abs((a.temperature or 0) - (usual.temperature or 0)))
        first = {arm.method: arm for arm in reversed(near)}
        chosen = [arm for arm in chosen if first[arm.method] == arm][:_MOST_ARMS]
    ordered = [usual, *(arm for arm in chosen if arm != usual)]
    most = max(1, _MOST_CLASS_ROWS // (2 * max(1, len(study.class_names))))
    return ordered[:most]


def study_pairs(study: Study, classes: ClassWise, groups: GroupWise) -> list[Pair]:
    """Pairs every shown arm with NDS and Teacher, on their common seeds."""
    found: list[Pair] = []
    for arm in shown_arms(study):
        for role in (Role.STUDENT, Role.TEACHER):
            tables = list(study.pairs_with(role, arm))
            if not tables:
                continue
            name = study.names[arm]
            found.append(
                Pair(
                    f"{file_stem(name)}_{role.label}".lower(),
                    (role.label, name),
                    (role.label, name),
                    [own for own, _ in tables],
                    [own for _, own in tables],
                    study.class_names,
                    classes.tests.get((arm, role)),
                    groups.tests.get((arm, role)),
                    leads=arm == usual_arm(study),
                )
            )
    return found
