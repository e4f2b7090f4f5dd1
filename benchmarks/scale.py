"""Computes what a study of the paper's size costs: hours of a GPU, bytes, runs and rows.

    python -m benchmarks.scale

Nothing is trained. The counts come from the shipped projects, the rates of the GPU from timm's
published tables, and bytes and rows per run from runs of this platform. `docs/scale.md` holds the
table and says which of it is measured; a test compares the two.
"""

import sys
from dataclasses import dataclass
from math import isnan, nan

from kdplatform.experiments.teacher_logits import MOST_VIEW_BYTES, views_pay
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig
from kdplatform.training.batches import view_count

# Training images, images of the test split, and classes (docs/datasets.md).
SIZES = {
    "imagenet": (1_281_167, 50_000, 1_000),
    "imagenet_vit": (1_281_167, 50_000, 1_000),
    "cifar100": (50_000, 10_000, 100),
}
SEEDS = 5
# Images a second on one RTX 3090 at 224 pixels, mixed precision, channels last. Training: timm's
# results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv. Inference: its
# results/benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv.
TRAINING = {"resnet18": 3481.78, "resnet50": 1218.01, "vit_b_16": 392.99}
INFERENCE = {"resnet18": 11188.75, "resnet50": 3729.86, "vit_b_16": 1572.08, "tiny_vit_5m": 6035.01}
# timm has no training rate of it. Its other transformers train at a quarter of their inference.
TRAINING["tiny_vit_5m"] = INFERENCE["tiny_vit_5m"] / 4
# Weights in millions: timm's tables, and of the two networks for CIFAR-100 a count.
WEIGHTS = {"resnet18": 11.69, "tiny_vit_5m": 12.08, "resnet50": 25.56, "vit_b_16": 86.57}
WEIGHTS |= {"resnet20": 0.28, "resnet56": 0.86}

# Of one row of predictions beside its logits: id, label, prediction and the file's own.
ROW_BYTES = 168
# Of one distilled run on a table of 400 rows: tags, parameters, metrics without curves and their
# latest values, and the same of its logged model; then the curves of one epoch.
ROWS_PER_RUN = 23 + 55 + 35 + 44 + 33 + 54 + 4
ROWS_PER_EPOCH = 9
# A store of 10,003 runs had 1,856,956 rows and 431,554,560 bytes.
BYTES_PER_ROW = 431_554_560 / 1_856_956


@dataclass(frozen=True)
class Cost:
    """What the study of one project costs.

    Attributes:
        hours: of one GPU, computed from published rates; NaN where there is none.
        table_bytes: of all teachers' logits, as this project asks for them.
        plain_table_bytes: of the same table without augmentation.
        prediction_bytes: of all models, test and validation split.
        model_bytes: of all models' weights, as a state dict and as a logged graph.
    """

    models: int
    hours: float
    table_bytes: int
    plain_table_bytes: int
    prediction_bytes: int
    model_bytes: float
    rows: int

    @property
    def database_bytes(self) -> float:
        """Of the tracking store's database."""
        return self.rows * BYTES_PER_ROW


def cost(project: str) -> Cost:
    """Returns the cost of a shipped project with five seeds and the paper's temperatures."""
    config = load_project(project, {"seeds": f"0-{SEEDS - 1}"})
    images, test, classes = SIZES[project]
    val = round(images * config.dataset.val_fraction)
    train = images - val
    students = SEEDS * (1 + len(config.temperatures))
    teachers = 1 if config.teacher.frozen else SEEDS
    models = students + teachers
    weights = students * WEIGHTS[config.student.model] + teachers * WEIGHTS[config.teacher.model]
    epochs = config.student.epochs
    return Cost(
        models,
        _hours(config, train),
        teachers * _table_bytes(config, train, classes),
        teachers * train * classes * 4,
        models * (test + val) * (4 * classes + ROW_BYTES),
        2 * 4e6 * weights,
        models * (ROWS_PER_RUN + ROWS_PER_EPOCH * epochs),
    )


def _hours(config: ProjectConfig, train: int) -> float:
    student, teacher = config.student, config.teacher
    if student.model not in TRAINING or not teacher.frozen:
        return nan
    alone = train * student.epochs / TRAINING[student.model]
    # Streamed images are augmented anew: the teacher is asked for each of them.
    taught = alone + train * student.epochs / INFERENCE[teacher.model]
    return SEEDS * (alone + len(config.temperatures) * taught) / 3600


def _table_bytes(config: ProjectConfig, train: int, classes: int) -> int:
    augmentation = config.student.augmentation
    if not augmentation.active:
        return train * classes * 4
    kept = config.dataset.model_dump().get("storage") != "stream"
    if kept and views_pay(config.student, train, classes):
        return train * view_count(augmentation) * classes * 2
    return 0


def table() -> list[str]:
    """Returns the lines of the Markdown table."""
    costs = {name: cost(name) for name in SIZES}
    rows = {
        "models (runs beside the command's own)": [f"{c.models}" for c in costs.values()],
        "hours of one RTX 3090": [
            "-" if isnan(c.hours) else f"{c.hours:,.0f}" for c in costs.values()
        ],
        "tables of the teachers' logits": [_size(c.table_bytes) for c in costs.values()],
        "the same without augmentation": [_size(c.plain_table_bytes) for c in costs.values()],
        "predictions": [_size(c.prediction_bytes) for c in costs.values()],
        "weights": [_size(c.model_bytes) for c in costs.values()],
        "rows in the tracking store": [f"{c.rows:,}" for c in costs.values()],
        "size of the tracking store": [_size(c.database_bytes) for c in costs.values()],
    }
    head = "| | " + " | ".join(f"`{name}`" for name in costs) + " |"
    lines = [head, "|---|" + "---|" * len(costs)]
    return [*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]


def _size(count: float) -> str:
    if count == 0:
        return "none"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def main() -> int:
    """Prints the table."""
    print("\n".join(table()))
    print(f"\na table of augmented views is kept up to {_size(MOST_VIEW_BYTES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
