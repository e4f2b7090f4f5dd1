"""What the entries of `distillation.teachers` mean."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdplatform.settings.schema import parse_integers

ALLOWED = (
    "same, seeds such as 0-3, PROJECT:0-3, the id of a run, runs:/..., models:/..., or a file "
    "(.pt, .pth, .safetensors); MODEL@ before weights names their architecture"
)
SAME = "same"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SEEDS = re.compile(r"\d{1,9}(-\d{1,9})?")
_WEIGHTS = re.compile(r"(runs:/|models:/).+|.+\.(pt|pth|safetensors)", re.DOTALL)


@dataclass(frozen=True)
class TeacherEntry:
    """One teacher.

    Attributes:
        seed: of a teacher that is trained; None: that of the student.
        project: whose teacher it is; empty: this project's.
        weights: of a teacher that is taken as it is; empty: it is trained.
        model: the architecture of the weights; empty: known from them, or the project's.
    """

    seed: int | None = None
    project: str = ""
    weights: str = ""
    model: str = ""

    def label(self, seed: int) -> str:
        """Returns the teacher in words; a run by the head of its id, files by their names.

        Args:
            seed: of the student.
        """
        if not self.weights:
            own = seed if self.seed is None else self.seed
            return f"{self.project.rpartition('/')[2]} seed {own}".strip()
        if _RUN_ID.fullmatch(self.weights):
            return f"run {self.weights[:8]}"
        return self.weights.rpartition("/")[2]


def teacher_entries(entries: Sequence[str]) -> tuple[TeacherEntry, ...]:
    """Returns the teachers that entries name, one for each seed of a range.

    Raises:
        ValueError: an entry means nothing, or a teacher is named twice.
    """
    found = [teacher for entry in entries for teacher in _teachers(entry.strip())]
    for place, teacher in enumerate(found):
        if teacher in found[:place]:
            raise ValueError(f"{teacher.label(0)} is given twice")
    return tuple(found)


def _teachers(entry: str) -> Iterator[TeacherEntry]:
    model, at, weights = entry.rpartition("@")
    if _RUN_ID.fullmatch(weights) or _WEIGHTS.fullmatch(weights):
        yield TeacherEntry(weights=weights, model=model)
        return
    project, _, seeds = entry.rpartition(":")
    if at or not (seeds == SAME or _SEEDS.fullmatch(seeds)) or entry.startswith(":"):
        raise ValueError(f"{entry!r} names no teacher")
    if seeds == SAME:
        yield TeacherEntry(project=project)
        return
    for seed in parse_integers(seeds):
        yield TeacherEntry(seed, project)
