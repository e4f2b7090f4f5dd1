"""How to read the counts of classes and groups: their tests, chance, and what they miss."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.groups import GroupComparison
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import GROUP_REFERENCES, REFERENCES
from kdplatform.study.planning import size_words
from kdplatform.study.study import Arm

Test = ClassComparison | GroupComparison

_DIFFER = "whose accuracy differs from Teacher and NDS at p < .05"
_CLASSES, _GROUPS = f"n_tc, n_sc: classes {_DIFFER}", f"n_tg, n_sg: groups {_DIFFER}"
_TESTS = {
    "McNemar": "exact McNemar test of this one pair of models",
    "Welch": "Welch's test over the seeds",
    "paired t": "paired t test over the seeds",
}


def arms_reading(classes: ClassWise, groups: GroupWise, arm: Arm) -> list[str]:
    """Returns the lines below a table of one kind of students."""
    lines = []
    of_classes = {r: classes.tests[arm, r] for r in REFERENCES if (arm, r) in classes.tests}
    if of_classes:
        lines += [_CLASSES, *_test_lines(of_classes, REFERENCES, "class")]
        if Role.TEACHER not in of_classes:
            there = any(own.role is Role.TEACHER for own in classes.study.arms)
            lines.append(
                "n_tc needs a teacher per seed, because one shared teacher has no spread"
                if there
                else "n_tc needs the teacher's predictions, which are missing"
            )
    of_groups = {r: groups.tests[arm, r] for r in REFERENCES if (arm, r) in groups.tests}
    if of_groups:
        lines += [_GROUPS, *_test_lines(of_groups, GROUP_REFERENCES, "group")]
    return lines


def _test_lines(tests: Mapping[Role, Test], names: Mapping[Role, str], noun: str) -> list[str]:
    words = " and ".join(dict.fromkeys(_TESTS[test_name(test)] for test in tests.values()))
    chance = {f"n_{names[role]}": test.counts.expected_by_chance for role, test in tests.items()}
    lines = [f"({words}); chance alone gives about {chance_words(chance)}"]
    return [*lines, *unseen_lines(tests.values(), noun)]


def test_name(test: Test) -> str:
    """Returns the test of a class or group: "McNemar", "Welch" or "paired t"."""
    return test.test if isinstance(test, ClassComparison) else test.shifts.test


def chance_words(chance: Mapping[str, float]) -> str:
    """Returns the numbers by chance: one number if all are alike, otherwise one per name."""
    words = {name: f"{value:.2g}" for name, value in chance.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{value} ({name})" for name, value in words.items())


def unseen_lines(tests: Iterable[Test], noun: str) -> list[str]:
    """Says what changes the tests would have missed, and how many tests could never give p < .05.

    A count of 0 does not exclude changes that the tests cannot see.
    """
    sizes, blind, tested = [], 0, 0
    for test in tests:
        found, own_blind = _unseen(test)
        sizes.append(found)
        blind += own_blind
        tested += test.counts.tested
    known = np.concatenate(sizes) if sizes else np.empty(0)
    if not len(known):
        return []
    lines = [f"could have hidden (power .8): {size_words(noun, known)}"]
    if blind:
        lines.append(
            f"in {blind} of {tested} tests of a {noun} the models differ on too few examples for p "
            "< .05"
        )
    return lines


def _unseen(test: Test) -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.float64]]", int]:
    """Detectable changes of the tested cells, and how many tests cannot give p < .05."""
    if isinstance(test, ClassComparison) and test.permutation is not None:
        shift = test.detectable_shift
        return np.array([shift] if np.isfinite(shift) else []), 0
    table = test.table if isinstance(test, ClassComparison) else test.groups
    tested = table[table["p_value"].notna()]
    sizes = tested["detectable"].dropna().to_numpy(dtype=float)
    return sizes, int((tested["chance"] == 0).sum())


def sweep_reading(classes: ClassWise, groups: GroupWise) -> list[str]:
    """Returns the lines below a table of a study over temperatures."""
    distilled = classes.study.distilled
    if not distilled:
        return []
    of_classes = [classes.over_seeds(arm, role) for arm in distilled for role in REFERENCES]
    lines = [_CLASSES, *_over_seeds(of_classes, "class")]
    of_groups: list[GroupComparison | None] = []
    if groups.tests:
        of_groups = [groups.over_seeds(arm, role) for arm in distilled for role in REFERENCES]
        lines += [_GROUPS, *_over_seeds(of_groups, "group")]
    if None in of_classes or None in of_groups:
        lines.append("(McNemar): exact test of each pair of models, mean over seeds; where there")
        lines.append(
            "is one seed, or one teacher for all, no test of classes over seeds is possible"
        )
        pairs = [
            test
            for tests in (classes.tests.values(), groups.tests.values())
            for test in tests
            if test_name(test) == "McNemar"
        ]
        for noun, kind in (("class", ClassComparison), ("group", GroupComparison)):
            lines += unseen_lines([test for test in pairs if isinstance(test, kind)], noun)
    return lines


def _over_seeds(tests: Sequence[Test | None], noun: str) -> list[str]:
    known = [test for test in tests if test is not None]
    if not known:
        return []
    words = " and ".join(dict.fromkeys(_TESTS[test_name(test)] for test in known))
    chance = max(test.counts.expected_by_chance for test in known)
    return [f"({words}); chance alone gives about {chance:.2g}", *unseen_lines(known, noun)]
