"""What a model is in the comparison: teacher, student (NDS) or distilled student (DS)."""

from enum import StrEnum


class Role(StrEnum):
    """What a model is in the comparison."""

    TEACHER = "teacher"
    STUDENT = "student"
    DISTILLED = "distilled"

    @property
    def label(self) -> str:
        """The name of the role in tables and titles."""
        return _LABELS[self]


_LABELS = {Role.TEACHER: "Teacher", Role.STUDENT: "NDS", Role.DISTILLED: "DS"}
