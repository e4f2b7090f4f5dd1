"""Group shifts of a whole study: which groups of DS got worse or better than Teacher and NDS."""

import pandas as pd

from kdplatform.roles import Role
from kdplatform.study.groups import GroupComparison, compare_groups
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm, Study


class GroupWise:
    """All group comparisons of a study.

    Seed i is compared with seed i. A teacher that all seeds share is compared with each of them.

    Attributes:
        tests: by arm and the role that it is compared with; impossible comparisons are absent.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.tests: dict[tuple[Arm, Role], GroupComparison] = {}
        if study.cells is None:
            return
        for arm in study.distilled:
            for role in REFERENCES:
                pairs = list(study.pairs_with(role, arm))
                if pairs:
                    references, own = zip(*pairs, strict=True)
                    if role is Role.TEACHER and study.shared_teacher is not None:
                        references = references[:1]
                    self.tests[arm, role] = compare_groups(
                        references,
                        own,
                        study.cells,
                        min_group_size=study.min_group_size,
                        class_names=study.class_names,
                    )

    def over_seeds(self, arm: Arm, role: Role) -> GroupComparison | None:
        """The comparison over seeds; None if there is none, or only one pair of models."""
        test = self.tests.get((arm, role))
        return None if test is None or max(test.shifts.seeds) == 1 else test

    def table(self) -> pd.DataFrame:
        """All cells of all comparisons: `arm`, `reference`, then the columns of `group_shifts`."""
        parts = []
        for (arm, role), test in self.tests.items():
            part = test.table.copy()
            part.insert(0, "arm", self.study.names[arm])
            part.insert(1, "reference", role.label)
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
