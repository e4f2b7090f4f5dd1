"""Class-wise bias of a whole study: which classes of DS differ from Teacher and NDS."""

import numpy as np

from kdplatform.analysis.classwise import ArmAccuracies, arm_accuracies
from kdplatform.analysis.comparison import ClassComparison, compare_classes, compare_pair
from kdplatform.analysis.disagreement import disagreement_by_class
from kdplatform.analysis.tables import listed
from kdplatform.predictions import FloatArray
from kdplatform.roles import Role
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm, Study


class ClassWise:
    """All class tests of a study.

    Attributes:
        tests: by arm and the role that it is compared with; impossible comparisons are absent.
        reasons: why a comparison is impossible, by arm and role.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.n_classes = len(study.class_names)
        self.accuracies: dict[Arm, ArmAccuracies] = {
            arm: arm_accuracies(study.tables(arm), self.n_classes) for arm in study.arms
        }
        self.tests: dict[tuple[Arm, Role], ClassComparison] = {}
        self.reasons: dict[tuple[Arm, Role], str] = {}
        for arm in study.distilled:
            for role in REFERENCES:
                self._compare(arm, role)

    def _compare(self, arm: Arm, role: Role) -> None:
        study, reference = self.study, Arm(role)
        seeds = len(study.seeds(reference)), len(study.seeds(arm))
        pairs = list(study.pairs_with(role, arm))
        if min(seeds) > 1 and (blind := self._never_right(reference, arm)):
            self.reasons[arm, role] = (
                f"{listed(blind)} predicts no example correctly, so classes cannot be divided by "
                "its overall accuracy"
            )
        elif min(seeds) > 1:
            self.tests[arm, role] = compare_classes(
                self.accuracies[reference], self.accuracies[arm], n_classes=self.n_classes
            )
        elif max(seeds) == 1 and pairs:
            self.tests[arm, role] = compare_pair(*pairs[0], self.n_classes)
        elif seeds[0] == 0:
            self.reasons[arm, role] = f"no {role.label} is there"
        elif role is Role.TEACHER and study.shared_teacher is not None:
            self.reasons[arm, role] = "one teacher is shared by all seeds and has no spread"
        else:
            word = "seed" if seeds[1] == 1 else "seeds"
            name = study.names[arm]
            self.reasons[arm, role] = f"{seeds[1]} {word} of {name}, {seeds[0]} of {role.label}"

    def _never_right(self, *arms: Arm) -> list[str]:
        """Names models with an accuracy of 0, which occur with many classes."""
        return [
            f"{self.study.names[arm]} seed {seed}"
            for arm in arms
            for seed, overall in zip(
                self.study.seeds(arm), self.accuracies[arm].overall, strict=True
            )
            if overall == 0
        ]

    def over_seeds(self, arm: Arm, role: Role) -> ClassComparison | None:
        """The comparison over seeds; None if there is none."""
        test = self.tests.get((arm, role))
        return None if test is None or test.permutation is None else test

    @property
    def detectable_shifts(self) -> list[float]:
        """The class shift that each comparison over seeds detects with power 0.8, if known."""
        shifts = [test.detectable_shift for test in self.tests.values()]
        return [shift for shift in shifts if np.isfinite(shift)]

    def notes(self) -> list[str]:
        """Classes that are absent, and models that never predict a class."""
        study = self.study
        numbers = self.accuracies[next(iter(study.arms))].n
        absent = [name for name, n in zip(study.class_names, numbers, strict=True) if n == 0]
        found = []
        if absent:
            found.append(f"Not tested, because there are no test examples: {listed(absent)}.")
        if single := int((numbers == 1).sum()):
            found.append(
                f"{single} classes have one test example each. Their accuracy is 0 or 1 in each "
                "model, so a test by class says little about them."
            )
        labels = set(np.unique(study.any_table.labels))
        blind: dict[tuple[int, ...], list[str]] = {}
        for arm, models in study.arms.items():
            for seed, model in sorted(models.items()):
                never = sorted(int(c) for c in labels - set(np.unique(model.test.predictions)))
                if never:
                    blind.setdefault(tuple(never), []).append(f"{study.names[arm]} seed {seed}")
        for classes, models_of in blind.items():
            names = listed([study.class_names[label] for label in classes])
            found.append(f"Never predicted: {names} by {listed(models_of)}.")
        return found


def class_disagreement(study: Study, arm: Arm, role: Role) -> FloatArray:
    """Share of each class that an arm and a reference predict differently, mean over the seeds."""
    shares = [
        disagreement_by_class(*pair, len(study.class_names))["disagreement"].to_numpy(dtype=float)
        for pair in study.pairs_with(role, arm)
    ]
    if not shares:
        return np.full(len(study.class_names), np.nan)
    return np.asarray(np.mean(shares, axis=0))
