"""Does debiasing survive distillation? Teachers without and with it, and students of each.

    python -m benchmarks.debiased_teachers --seeds 0-4 --json debiased.json

Trifeature with 80% of the training images of a shape in its own color: color is a shortcut for the
label, and test images are balanced. A group is a shape in a color; the worst of the 49 comes first,
on test images. ResNet-20 teaches ResNet-8, whose blocks have the shapes of the teacher's first
ones, so that a student can start from them. Differences are of pairs of one seed, with the 95% t
interval over seeds, from the plain student of the plain teacher. What is trained already is found
again.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from kdplatform import cli
from kdplatform.analysis.intervals import paired_difference
from kdplatform.experiments.report import load_study
from kdplatform.experiments.tracking import prepare_store, quiet_mlflow
from kdplatform.predictions import Predictions
from kdplatform.settings.project import load_project
from kdplatform.study.study import NDS, TEACHER, Study

CELLS = "label*color"
TRAINED = {"batch_size": 64, "optimizer": "adamw", "weight_decay": 1e-4, "warmup_epochs": 2}
PROJECT = {
    "name": "debiased",
    "dataset": {
        "name": "trifeature",
        "image_size": 32,
        "shape_size": 96,
        "values_per_feature": 7,
        "versions_train": 2,
        "versions_val": 4,
        "versions_test": 20,
        "correlation": 0.8,
    },
    "teacher": {"model": "resnet20", "epochs": 16, "learning_rate": 3e-3, **TRAINED},
    "student": {"model": "resnet8", "epochs": 16, "learning_rate": 3e-3, **TRAINED},
    "distillation": {"temperature": 4, "alpha": 0.8},
    "temperatures": [4],
    "attributes": ["color"],
}
PROJECT["teacher"]["validate_every"] = PROJECT["student"]["validate_every"] = 16  # type: ignore[index]
TEACHERS: dict[str, dict[str, object]] = {
    "cross_entropy": {},
    "group_dro": {"method": "group_dro", "attribute": CELLS, "step_size": 0.1},
    "reweighing": {"method": "reweighing", "attribute": "color"},
    "group_balanced": {"method": "group_balanced", "attribute": CELLS},
    "jtt": {"method": "jtt", "first_epochs": 4, "upweight": 5},
    "dfr": {"method": "dfr", "attribute": CELLS},
}
# Of the teacher by group_dro, beside plain distillation.
STUDENTS: dict[str, dict[str, object]] = {
    "group_dro": {"method": "group_dro", "attribute": CELLS, "step_size": 0.1},
    "group_balanced": {"method": "group_balanced", "attribute": CELLS},
    "adaptive_alpha": {"method": "adaptive_alpha", "attribute": CELLS},
    "kd, started from it": {"method": "kd", "start": "teacher"},
}
DEBIASED = "group_dro"


class Row(NamedTuple):
    """One kind of student: what it is, and its study."""

    teacher: str
    student: str
    study: Study


def written(folder: Path, name: str, teacher: str, distillation: dict[str, object]) -> Path:
    """Writes a project's file and returns its path."""
    own: dict[str, object] = {**PROJECT["teacher"]}  # type: ignore[dict-item]
    if TEACHERS[teacher]:
        own["method"] = TEACHERS[teacher]
    content = {**PROJECT, "teacher": own}
    content["distillation"] = {"temperature": 4, "alpha": 0.8} | distillation
    if distillation.get("method") == "adaptive_alpha":
        del content["distillation"]["alpha"]  # type: ignore[attr-defined]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def projects(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yields teacher, student and project file of every kind of student."""
    for teacher in TEACHERS:
        yield teacher, "kd", written(folder, f"kd-{teacher}", teacher, {})
    for place, (student, fields) in enumerate(STUDENTS.items()):
        yield DEBIASED, student, written(folder, f"student-{place}", DEBIASED, fields)
    both = ["same", f"{folder / f'kd-{DEBIASED}.yaml'}:same"]
    fields = {"method": "ensemble", "weighting": "agre", "teachers": both}
    name = f"cross_entropy and {DEBIASED}"
    yield name, "ensemble, agre", written(folder, "agre", "cross_entropy", fields)


def worst_cell(table: Predictions) -> float:
    """Returns the accuracy of the worst group of label and color, in %."""
    cells = table.columns["color"].to_numpy().astype(str)
    names = np.char.add(np.char.add(table.labels.astype(str), " "), cells)
    return 100 * min(float(table.correct[names == name].mean()) for name in np.unique(names))


def values(study: Study, arm: object, measure: str) -> dict[int, float]:
    """Returns a measure of an arm by seed, in %."""
    found = {}
    for seed, model in study.arms.get(arm, {}).items():  # type: ignore[call-overload]
        worst = measure == "worst"
        found[seed] = worst_cell(model.test) if worst else 100 * model.test.accuracy
    return found


def shown(found: dict[int, float]) -> str:
    own = np.array(list(found.values()))
    return f"{own.mean():.1f} ± {own.std(ddof=1):.1f}" if len(own) > 1 else f"{own.mean():.1f}"


def difference(own: dict[int, float], other: dict[int, float]) -> str:
    """Returns the mean difference over the seeds of both, with its interval."""
    seeds = sorted(own.keys() & other.keys())
    if len(seeds) < 2:
        return "one seed"
    found = paired_difference([own[s] for s in seeds], [other[s] for s in seeds]).interval
    if np.isnan(found.low):
        return f"{found.estimate:+.1f}, all seeds alike"
    return f"{found.estimate:+.1f} ({found.low:.1f} to {found.high:.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--epochs", type=int, help="of every model; for a first try")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "debiased")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    quiet_mlflow()
    rows = []
    for teacher, student, path in projects(asked.folder.resolve()):
        words = ["--project", str(path), "--seeds", asked.seeds]
        fields = {"seeds": asked.seeds}
        if asked.epochs:
            fields |= {f"{model}.epochs": str(asked.epochs) for model in ("teacher", "student")}
            words += [word for k, v in list(fields.items())[1:] for word in (f"--{k}", v)]
        if code := cli.main(["sweep", *words, "--workers", asked.workers]):
            return code
        prepare_store()
        config = load_project(str(path), fields)
        study = load_study(config, ("seeds", "temperatures"), intersections=False)
        rows.append(Row(teacher, student, study))
    plain = values(rows[0].study, rows[0].study.distilled[0], "worst")
    content = []
    print(
        "\n| teacher | student | teacher's worst group | student's worst group | minus plain kd |"
        " teacher's accuracy | student's accuracy |"
    )
    print("|---|---|---|---|---|---|---|")
    nds = rows[0].study
    own = {name: values(nds, NDS, name) for name in ("worst", "mean")}
    print(
        f"| none | NDS | - | {shown(own['worst'])} | {difference(own['worst'], plain)} | - | "
        f"{shown(own['mean'])} |"
    )
    content.append(
        {"teacher": None, "student": "NDS", **{k: list(v.values()) for k, v in own.items()}}
    )
    for row in rows:
        arm = row.study.distilled[0]
        worst, mean = (values(row.study, arm, name) for name in ("worst", "mean"))
        taught = [shown(values(row.study, TEACHER, name)) for name in ("worst", "mean")]
        against = "-" if row is rows[0] else difference(worst, plain)
        print(
            f"| {row.teacher} | {row.student} | {taught[0]} | {shown(worst)} | {against} | "
            f"{taught[1]} | {shown(mean)} |"
        )
        content.append(
            {
                "teacher": row.teacher,
                "student": row.student,
                "worst": list(worst.values()),
                "mean": list(mean.values()),
                "teacher_worst": list(values(row.study, TEACHER, "worst").values()),
                "teacher_mean": list(values(row.study, TEACHER, "mean").values()),
            }
        )
    if asked.json:
        asked.json.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
