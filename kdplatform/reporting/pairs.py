"""Two arms of a study, or two sides of a comparison, as the chapters of a page hold them."""

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
# Further pairs are in the files; a page of more would be slow to open and to read.
_MOST_ARMS = 6
_MOST_CLASS_ROWS = 1200


@dataclass(frozen=True)
class Pair:
    """Side B compared with side A, the reference.

    Attributes:
        key: part of the names of files; empty if this is the page's only pair.
        names: of both sides, as figures and tables call them.
        short: names of both sides for places with little room.
        a: predictions of the reference; model i belongs to model i of `b` where both are as many.
        test: of the classes; None where there is none.
        groups: of the attributes; None where there is none.
        leads: whether image files of it are written.
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
    """The arm that a page shows first, whatever its numbers: T nearest to the usual one."""

    def far(arm: Arm) -> float:
        return abs(math.log((arm.temperature or USUAL_TEMPERATURE) / USUAL_TEMPERATURE))

    return min(study.distilled, key=far)


def shown_arms(study: Study) -> list[Arm]:
    """The arms that a page shows, the usual one first: all, or one of every method.

    Very many classes leave room for the usual arm alone.
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
    """Every arm that is shown against NDS and Teacher, on the seeds that both have."""
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
