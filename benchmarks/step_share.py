"""How much of a training step is the loss: processor time of the step and of the loss alone.

    python -m benchmarks.step_share                       # trifeature: LeNet-5, batches of 64

A step is what the training loop does without its bookkeeping: model, method, backward pass,
optimiser. "The loss" is the distillation method, its mean and its backward pass down to the
logits, alone and so with all that autograd costs for a graph of its own: an upper bound.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from kdplatform.data import DataFacts
from kdplatform.kernels import kd_loss
from kdplatform.methods import Batch, Output, build_method
from kdplatform.models import build_model
from kdplatform.settings.project import load_project
from kdplatform.training.schedule import build_optimizer

CLASSES, CHANNELS, IMAGE_SIZE = 10, 3, 32
"""Those of trifeature; another project lends its model and batch size, not its images."""


def microseconds(step: Callable[[], object], seconds: float) -> float:
    """Returns the median processor time of a step, over blocks of 20."""
    for _ in range(5):
        step()
    times = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(times) < 5:
        start = time.process_time()
        for _ in range(20):
            step()
        times.append((time.process_time() - start) / 20 * 1e6)
    return statistics.median(times)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--project", default="trifeature")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the two")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    logits = torch.randn(1, CLASSES)
    backend = kd_loss(logits, logits, temperature=1.0, alpha=1.0).backend
    config = load_project(arguments.project)
    training = config.student
    rows = training.batch_size
    facts = DataFacts((CHANNELS, IMAGE_SIZE, IMAGE_SIZE), tuple(map(str, range(CLASSES))))
    model = build_model(training.model, facts)
    method = build_method(config.distillation)
    optimizer = build_optimizer(model.parameters(), training)
    numbers, labels = torch.arange(rows), torch.randint(CLASSES, (rows,))
    batch = Batch(torch.randn(rows, CHANNELS, IMAGE_SIZE, IMAGE_SIZE), labels, numbers, numbers)
    teacher = Output(3 * torch.randn(rows, CLASSES))
    logits = torch.randn(rows, CLASSES, requires_grad=True)

    def run(student: Callable[[torch.Tensor], Output]) -> Any:
        return SimpleNamespace(config=training, student=student, teacher=lambda batch: teacher)

    alone = run(lambda inputs: Output(logits))
    whole = run(lambda inputs: Output(model(inputs)))

    def loss_alone() -> None:
        logits.grad = None
        method.loss(batch, alone).rows.mean().backward()

    def whole_step() -> None:
        loss = method.loss(batch, whole).rows
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    step, loss = (microseconds(each, arguments.seconds) for each in (whole_step, loss_alone))
    print(
        f"{training.model}, batch {rows}, {CLASSES} classes, {backend}: step {step:.0f} us, "
        f"loss {loss:.0f} us, {100 * loss / step:.2f}% of the step"
    )


if __name__ == "__main__":
    main()
