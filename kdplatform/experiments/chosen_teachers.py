"""The teachers of a project's students: how they are trained, or their given weights."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

from kdplatform.errors import UserError
from kdplatform.experiments.weights import find_weights, named_by_field
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import DatasetConfig, ProjectConfig, TrainingConfig
from kdplatform.settings.teacher_entries import TeacherEntry, teacher_entries
from kdplatform.settings.words import plain_text

# Data stay the same if their place or the way of reading changes.
_PLACES = {"storage", "workers"}


@dataclass(frozen=True)
class ChosenTeacher:
    """One teacher: how it is trained, or its weights or logits.

    Attributes:
        label: its name among several teachers.
    """

    training: TrainingConfig
    seed: int
    label: str


def chosen_teachers(config: ProjectConfig, seed: int, dataset_digest: str) -> list[ChosenTeacher]:
    """Returns the teachers that the students of a seed learn from, in the order of the list.

    Raises:
        UserError: a teacher is missing, or belongs to other data or classes.
    """
    files = config.teacher.logits
    if files:
        return [
            ChosenTeacher(config.teacher.model_copy(update={"logits": (file,)}), 0, _name(file))
            for file in files
        ]
    named = config.distillation.teachers
    if not named:
        own = config.teacher_seed(seed)
        return [ChosenTeacher(config.teacher, own, f"seed {own}")]
    entries = teacher_entries(named)
    return [_chosen(config, entry, seed, dataset_digest) for entry in entries]


def reference_teacher(
    config: ProjectConfig, entry: str, seed: int, dataset_digest: str
) -> ChosenTeacher:
    """Returns the further model that a method uses, named like a teacher.

    Raises:
        UserError: as `chosen_teachers`, or the entry names none or several.
    """
    try:
        entries = teacher_entries([entry])
    except ValueError as error:
        raise UserError(f"distillation.reference={entry!r}: {error}; allowed: one") from None
    if len(entries) != 1:
        raise UserError(
            f"distillation.reference={entry!r} names {len(entries)} models; allowed: one"
        )
    return _chosen(config, entries[0], seed, dataset_digest)


def _chosen(
    config: ProjectConfig, entry: TeacherEntry, seed: int, dataset_digest: str
) -> ChosenTeacher:
    own = seed if entry.seed is None else entry.seed
    label = entry.label(seed)
    if entry.weights:
        training = TrainingConfig.model_validate(
            {"model": config.teacher.model, "weights": entry.weights, "frozen": True}
        )
        with named_as_given(training, config):
            model = _architecture(config, entry, dataset_digest)
        training = training.model_copy(update={"model": model})
        return ChosenTeacher(training, 0, label)
    if not entry.project:
        return ChosenTeacher(config.teacher, own, label)
    other = _project(entry.project)
    _check_dataset(config.dataset, other.dataset, entry.project)
    return ChosenTeacher(other.teacher, own, label)


@contextmanager
def named_as_given(
    training: TrainingConfig, config: ProjectConfig, role: Role = Role.TEACHER
) -> Iterator[None]:
    """Lets errors about weights name the field that has them.

    It is `teacher.weights` or `student.weights`, or `distillation.teachers` for one of its entries.
    """
    try:
        with nullcontext() if _is_entry(training, config, role) else named_by_field(role):
            yield
    except UserError as error:
        text = str(error)
        if not text.startswith("weights="):
            raise
        text = text.removeprefix("weights").replace(
            "; allowed: set teacher.model", "; allowed: model"
        )
        raise UserError(f"distillation.teachers{text}") from None


def _is_entry(training: TrainingConfig, config: ProjectConfig, role: Role) -> bool:
    """Returns whether weights are those of an entry of `distillation.teachers`."""
    of_teacher = role is Role.TEACHER and training.weights != config.teacher.weights
    return of_teacher and bool(config.distillation.teachers)


def _architecture(config: ProjectConfig, entry: TeacherEntry, dataset_digest: str) -> str:
    """Returns the architecture of weights; refuses weights that are known to be of other data."""
    source = find_weights(entry.weights)
    if source.are_of_another(dataset_digest):
        raise UserError(
            f"distillation.teachers={entry.weights!r} was trained on another dataset (digest "
            f"{source.dataset[:12]} instead of {dataset_digest[:12]}); allowed: teachers of this "
            "dataset, or teacher.weights with weights of other data"
        )
    return entry.model or source.model or config.teacher.model


@lru_cache(maxsize=16)
def _project(name: str) -> ProjectConfig:
    return load_project(name, given_as="distillation.teachers")


def _check_dataset(own: DatasetConfig, other: DatasetConfig, project: str) -> None:
    """Refuses the teacher of a project with other data; names the first difference."""
    ours, theirs = (each.model_dump(exclude=_PLACES) for each in (own, other))
    for name in ("name", *ours):
        if ours[name] != theirs.get(name):
            raise UserError(
                f"distillation.teachers={project!r}: its dataset.{name} is "
                f"{plain_text(theirs.get(name))!r} and here it is {plain_text(ours[name])!r}; "
                "allowed: teachers of the same dataset"
            )


def _name(file: str) -> str:
    return file.rpartition("/")[2]
