"""Which teachers a project's students learn from: what is wrong with them, and where they lie."""

from collections.abc import Sequence
from pathlib import Path

from kdplatform.errors import UserError
from kdplatform.files import not_there, user_path
from kdplatform.methods import method_class
from kdplatform.settings.schema import DistillationConfig, ProjectConfig
from kdplatform.settings.teacher_entries import ALLOWED, teacher_entries

LOGITS_ALLOWED = "files of a teacher's logits, .parquet or .csv"


def check_teachers(config: ProjectConfig, method: DistillationConfig) -> None:
    """Checks that the teachers of a method can be meant, and that it takes as many.

    Raises:
        UserError: an entry means nothing, two fields say which teachers, a file of logits is
            missing, or the method learns from one teacher and there are several.
    """
    named, logits = method.teachers, config.teacher.logits
    parameter, value = "distillation.teachers", ",".join(named)
    try:
        count = len(teacher_entries(named))
    except ValueError as error:
        raise UserError(f"{parameter}={value!r}: {error}; allowed: {ALLOWED}") from None
    if named and method.teacher_seed != "same":
        raise UserError(
            f"{parameter}={value!r} and distillation.teacher_seed={method.teacher_seed} are both "
            "given; allowed: one of them"
        )
    if named and logits:
        raise UserError(
            f"{parameter}={value!r} and teacher.logits={','.join(logits)!r} are both given; "
            "allowed: one of them"
        )
    for file in logits:
        path = user_path("teacher.logits", file)
        if not path.is_file() or path.suffix.lower() not in (".parquet", ".csv"):
            raise not_there("teacher.logits", file, path, LOGITS_ALLOWED)
    count = count or len(logits)
    if count > 1 and not method_class(method.method).needs.several:
        given = f"teacher.logits={','.join(logits)!r}" if logits else f"{parameter}={value!r}"
        raise UserError(
            f"{given} names {count} teachers, and method={method.method!r} learns from one; "
            "allowed: one, or method=ensemble"
        )
    if method.start == "teacher" and (logits or count > 1):
        raise UserError(
            "distillation.start='teacher' is not allowed with "
            f"{'teacher.logits' if logits else 'several teachers'}; allowed: with one teacher that "
            "is a network"
        )


def absolute_entries(entries: Sequence[str]) -> tuple[str, ...]:
    """Returns entries whose files are named by their absolute paths."""
    return tuple(map(_absolute, entries))


def _absolute(entry: str) -> str:
    for between in ("@", ":"):
        first, sign, last = entry.rpartition(between)
        place = last if between == "@" else first
        if sign and place.endswith((".yaml", ".yml", ".pt", ".pth", ".safetensors")):
            path = _resolved(place)
            return f"{first}{sign}{path}" if between == "@" else f"{path}{sign}{last}"
    return str(_resolved(entry)) if entry.endswith((".pt", ".pth", ".safetensors")) else entry


def _resolved(place: str) -> Path | str:
    path = user_path("distillation.teachers", place)
    return path.resolve() if path.exists() else place
