"""Checks before any training that a step can learn from its teachers."""

from typing import Any

from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.experiments.graph import Step
from kdplatform.experiments.logits_files import check_file_teacher, file_logits
from kdplatform.experiments.starting import start_from, starting_model
from kdplatform.methods import Method
from kdplatform.progress import collected_messages


def check_teachers(step: Step, method: Method[Any], dataset: Dataset) -> None:
    """Refuses teachers that a step cannot learn from.

    Raises:
        UserError: a teacher does not fit; the message says why.
    """
    teachers = step.teachers.values()
    if not teachers:
        return
    method.check_teachers([own.label or f"seed {own.seed}" for own in teachers], dataset)
    needs = method.needs
    for teacher in teachers:
        if teacher.training.logits and needs.teacher == "live":
            raise UserError(
                f"method={step.method.method!r} asks the teacher about inputs of its own, and "
                "teacher.logits has no network; allowed: a teacher that is one, or another method"
            )
        if teacher.training.logits and needs.teacher == "logits":
            check_file_teacher(
                file_logits(teacher, dataset),
                step,
                needs_val=needs.teacher_statistics,
                needs_unlabeled=needs.unlabeled,
            )
        if step.distillation is not None and step.distillation.start == "teacher":
            with collected_messages():
                student, source = (starting_model(own, dataset) for own in (step, teacher))
            start_from(student, source, step.title)
