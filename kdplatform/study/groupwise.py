"""Group shifts of a whole study: which groups of DS got worse or better than Teacher and NDS."""

from kdplatform.roles import Role
from kdplatform.study.groups import GroupComparison, compare_groups
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm, Study


class GroupWise:
    """All group comparisons of a study.

    Seed i is held against seed i; a teacher that all seeds share is held against each of them.

    Attributes:
        tests: by arm and the role it is compared with; a comparison that cannot be made is absent.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.tests: dict[tuple[Arm, Role], GroupComparison] = {}
        if not study.attributes:
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
                        study.attributes,
                        min_group_size=study.min_group_size,
                        class_names=study.class_names,
                    )
