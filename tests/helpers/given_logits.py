"""A method on logits that are given: no model, no training, all else as in a run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdplatform.data import Split
from kdplatform.methods import Batch, Loss, Method, Output, build_method
from kdplatform.settings.schema import MethodConfig, TrainingConfig

# One more than a batch here has, so that rows of a split and of a batch are not the same.
SPLIT_ROWS = 24


def random_logits(
    rows: int = 6, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns student's and teacher's logits [rows, classes] and labels [rows]."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, classes, generator=generator, dtype=dtype) * 2
    return student, teacher, torch.arange(rows) % classes


def split_of(classes: int, rows: int = SPLIT_ROWS) -> Split:
    """Returns a split in which each class and each of two groups has examples."""
    labels = torch.arange(rows) % classes
    groups = ["a" if row % 3 else "b" for row in range(rows)]
    inputs = torch.zeros(rows, 1)
    return Split(inputs, labels, np.arange(rows), pd.DataFrame({"group": groups}))


class Given(torch.nn.Module):
    """A network that says the same whatever it is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits


def answer(logits: Tensor, features: bool = False) -> Output:
    """Returns logits with features made of them: no shift of a row's logits changes those."""
    weights = torch.arange(1, logits.shape[1] + 1, dtype=logits.dtype)
    centred = logits - logits.mean(dim=1, keepdim=True)
    return Output(logits, centred * weights if features else None)


def given_run(
    student: Tensor, teacher: Tensor, *, smoothing: float = 0.0, epoch: int = 100
) -> SimpleNamespace:
    """Returns a run whose student and teacher say what is given, whatever they are asked."""
    classes = student.shape[1]
    split = split_of(classes)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(SPLIT_ROWS, classes, generator=generator)
    # A teacher that has learnt something, of the split as a whole.
    whole = noise + 2 * torch.nn.functional.one_hot(split.labels, classes)
    return SimpleNamespace(
        config=TrainingConfig(
            model="lenet5", epochs=1, learning_rate=0.1, label_smoothing=smoothing
        ),
        split=split,
        validation=split,
        unlabeled=None,
        device=torch.device("cpu"),
        generator=generator,
        epoch=epoch,
        step=epoch,
        steps_per_epoch=1,
        # What a method makes of the model, such as its moving average, says what the teacher says.
        model=Given(teacher),
        student=lambda inputs, features=False: answer(student, features),
        ask=lambda network, inputs, features=False: answer(network.logits, features),
        teachers=lambda batch: [teacher],
        reference=lambda batch: -teacher,
        teacher=lambda batch, features=False: answer(teacher, features),
        teacher_logits=lambda split: whole,
    )


def given_batch(labels: Tensor, first_row: int = 0) -> Batch:
    """Returns a batch of the split's rows from one on, with these labels."""
    rows = torch.arange(first_row, first_row + len(labels))
    return Batch(inputs=torch.zeros(len(labels), 1), labels=labels, ids=rows, rows=rows)


def begun(config: MethodConfig, run: Any) -> Method[Any]:
    """Returns a method that has begun the run, from the same seed always."""
    method = build_method(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.begin(run)
    return method


def evaluate(
    config: MethodConfig,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    first_row: int = 0,
    **run: Any,
) -> Loss:
    """Returns what a method that has just begun makes of logits, by default after any warm-up."""
    given = given_run(student, teacher, **run)
    return begun(config, given).loss(given_batch(labels, first_row), given)  # type: ignore[arg-type]
