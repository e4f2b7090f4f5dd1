"""What the findings of a study are made from: every distilled arm against NDS and Teacher."""

from collections.abc import Iterator, Sequence

from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.evidence import Evidence, MetricChange, accuracy_change, judged
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.study import Arm, Study


def study_evidence(
    study: Study, classes: ClassWise, groups: GroupWise, fairness: Sequence[GroupFairness]
) -> list[Evidence]:
    """Returns what is known of every arm against each reference that is there.

    Args:
        fairness: of the attributes whose EOD and DPD are told.
    """
    found = []
    for arm in study.distilled:
        for role in (Role.STUDENT, Role.TEACHER):
            pairs = list(study.pairs_with(role, arm))
            if not pairs:
                continue
            references, own = zip(*pairs, strict=True)
            if role is Role.TEACHER and study.shared_teacher is not None:
                references = references[:1]
            name = study.names[arm]
            found.append(
                Evidence(
                    f"{name} against {role.label}",
                    (role.label, name),
                    (len(references), len(own)),
                    [accuracy_change(references, own), *_fairness(fairness, arm, Arm(role))],
                    groups.tests.get((arm, role)),
                    classes.tests.get((arm, role)),
                    study.class_names,
                )
            )
    return found


def _fairness(
    fairness: Sequence[GroupFairness], arm: Arm, reference: Arm
) -> Iterator[MetricChange]:
    for each in fairness:
        for metric in ("eod", "dpd"):
            change = each.change([arm], reference, metric)
            a, b = (each.interval(own, metric).estimate for own in (reference, arm))
            verdict = judged(-1, change.interval, change.chance)
            name = f"{metric.upper()} by {each.name}"
            yield MetricChange(name, a, b, change.interval, verdict, -1)
