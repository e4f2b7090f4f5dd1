"""What each method costs: processor time and memory of a training step, relative to `kd`.

    python -m benchmarks.methods                          # LeNet-5 taught by ResNet-20, batch 64
    python -m benchmarks.methods --only crckd,adversarial --epochs 20

Every method of the registry is trained by the real loop on random images, one after the other in
this process and on one thread. The teacher's logits come from a table where the method allows it.
A method's own validation passes and hooks count. Memory is the highest sum that torch hands out in
a training of one step. Prints a table, and writes JSON with --out.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.peak_memory import peak_memory
from kdplatform.data import Dataset, Split
from kdplatform.methods import (
    build_method,
    method_config_class,
    method_config_classes,
    method_names,
)
from kdplatform.reporting.tables import text_table
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import Teacher, TeacherTable, fit, initialised_model, predict_logits

CLASSES, SIDE, ROWS = 10, 32, 512
CPU = torch.device("cpu")
# Settings beside a method's defaults: what it needs, and other ways that it may go.
WAYS: dict[str, list[dict[str, Any]]] = {
    "adversarial": [{}, {"form": "trades"}, {"weight_perturbation": 5e-3}, {"attack": "fgsm"}],
    "crckd": [{"start_epoch": 0}, {"start_epoch": 0, "teacher": "frozen"}],
    "feature": [{"kind": kind} for kind in ("fitnet", "rkd", "similarity", "selectivity")],
    "warmup_preference": [{"eta": 0.0, "warmup_epochs": 10**6}],
}
Row = dict[str, Any]


def cases(only: set[str]) -> Iterator[tuple[str, MethodConfig]]:
    """Yields every method in its ways, `kd` first; without a teacher as `name alone`."""
    for name in sorted(method_names(), key=lambda name: name != "kd"):
        if only and name not in only | {"kd"}:
            continue
        for own in method_config_classes(name).values():
            distils = own is method_config_class(name)
            for fields in WAYS.get(name, [{}]) if distils else [WAYS.get(name, [{}])[0]]:
                groups = {"attribute": "group"} if "attribute" in own.model_fields else {}
                shown = {k: v for k, v in fields.items() if k not in ("eta", "start_epoch")}
                words = [name, *([] if distils else ["alone"])]
                words += [f"{key}={value}" for key, value in shown.items() if value != 10**6]
                yield " ".join(words), own.model_validate({**groups, **fields})


def random_dataset() -> Dataset:
    """Returns random images in ten classes and two groups."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (ROWS, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    groups = pd.DataFrame({"group": ["a" if row % 3 else "b" for row in range(ROWS)]})
    split = Split(inputs, torch.arange(ROWS) % CLASSES, np.arange(ROWS), groups)
    few = split.at(np.arange(ROWS // 4))
    names = tuple(map(str, range(CLASSES)))
    return Dataset("random", "0", names, ("group",), split, few, few, unlabeled=few)


class Bench:
    """A teacher, its table, and trainings of students."""

    def __init__(self, model: str, teacher: str, batch_size: int) -> None:
        self.data = random_dataset()
        self._model, self._batch_size = model, batch_size
        network = initialised_model(teacher, self.data, seed=1, role=Role.TEACHER).eval()
        logits = predict_logits(network, self.data.train.inputs, device=CPU)
        self._teacher = Teacher(TeacherTable(logits), lambda: network)

    def trained(self, config: MethodConfig, epochs: int, split: Split) -> list[float]:
        """Trains a student; returns the processor time of each epoch in seconds."""
        training = TrainingConfig(
            model=self._model,
            epochs=epochs,
            batch_size=self._batch_size,
            optimizer="adamw",
            learning_rate=1e-3,
            precision="fp32",
            validate_every=10**6,
        )
        student = initialised_model(self._model, self.data, seed=0, role=Role.STUDENT)
        moments: list[float] = []
        fit(
            student,
            split,
            build_method(config),
            training,
            seed=0,
            role=Role.DISTILLED,
            device=CPU,
            teacher=self._teacher,
            validation=self.data.val,
            unlabeled=self.data.unlabeled,
            on_epoch=lambda record: moments.append(time.process_time()),
        )
        return list(np.diff(moments))

    def measured(self, config: MethodConfig, epochs: int) -> Row:
        """Returns milliseconds of a step, the median over epochs, and MiB of one."""
        steps = -(-ROWS // self._batch_size)
        # The first epoch warms caches up, and has the last one validate beside it.
        seconds = statistics.median(self.trained(config, epochs + 1, self.data.train))
        one = self.data.train.at(np.arange(self._batch_size))
        memory = peak_memory(lambda: self.trained(config, 1, one), [], "cpu")
        return {"ms": 1000 * seconds / steps, "mib": memory}


def table(rows: Mapping[str, Row]) -> str:
    """Returns the rows as text, relative to the first."""
    first = next(iter(rows.values()))
    words = [
        [
            name,
            f"{row['ms']:.2f}",
            f"{row['ms'] / first['ms']:.2f}",
            f"{row['mib']:.1f}",
            f"{row['mib'] / first['mib']:.2f}",
        ]
        for name, row in rows.items()
    ]
    return text_table(["", "ms a step", "by kd's", "MiB", "by kd's"], words)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3, help="of 512 images, beside the first")
    parser.add_argument("--only", default="", help="methods, separated by commas; none: all")
    parser.add_argument("--out", type=Path, default=None, help="where JSON is written")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    bench = Bench(arguments.model, arguments.teacher, arguments.batch_size)
    only = set(filter(None, arguments.only.split(",")))
    rows = {name: bench.measured(own, arguments.epochs) for name, own in cases(only)}
    print(table(rows))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
