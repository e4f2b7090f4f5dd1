"""Training: the loop, its data, schedules, teachers and checkpoints. Knows nothing of tracking."""

from kdplatform.training.checkpoint import remove_checkpoint
from kdplatform.training.conditions import answers_under
from kdplatform.training.initialisation import initialised_model
from kdplatform.training.loop import FitResult, check_fit, fit
from kdplatform.training.precision import Precision, resolve_precision
from kdplatform.training.prediction import predict_logits
from kdplatform.training.ranks import ALONE, Ranks
from kdplatform.training.records import EpochRecord
from kdplatform.training.teacher import Teacher, TeacherTable, view_logits

__all__ = [
    "ALONE",
    "EpochRecord",
    "FitResult",
    "Precision",
    "Ranks",
    "Teacher",
    "TeacherTable",
    "answers_under",
    "check_fit",
    "fit",
    "initialised_model",
    "predict_logits",
    "remove_checkpoint",
    "resolve_precision",
    "view_logits",
]
