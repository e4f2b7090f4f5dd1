"""Times the analysis of a whole study on synthetic predictions.

    python -m benchmarks.analysis --out analysis.json   # 1,000 classes, 50,000 examples
    python -m benchmarks.analysis --small               # a tenth of it, to see that it runs

A study is a teacher, a plain student and students at 13 temperatures, five seeds each. Times are
wall-clock and processor seconds of one pass after the tables are in memory (on a busy machine the
latter say more); the peak is that of the whole process with all tables. fairlearn's own functions
stand beside ours.
"""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import fairlearn
import numpy as np
import pandas as pd
import scipy
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.classwise import arm_accuracies
from kdplatform.analysis.comparison import compare_classes
from kdplatform.analysis.disagreement import disagreement_over_seeds
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.significance import mcnemar_by_class
from kdplatform.experiments.compare import compare

TEMPERATURES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40)
SEEDS = 5
GROUPS = {"young": 2, "region": 5, "color": 10}
DRAWS = 10_000
# Rows of a comparison of decisions on people.
ROWS = 6172

Study = dict[str, list[pd.DataFrame]]


@dataclass
class Row:
    """One timed part. Targets are in seconds, None where none is set."""

    part: str
    seconds: float
    cpu_seconds: float
    target: float | None


def synthetic_study(classes: int, examples: int) -> Study:
    """Models of 70 to 80% accuracy whose errors are mostly shared; predictions and groups only."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    difficulty = rng.random(examples)
    columns = {
        name: pd.Categorical.from_codes(
            rng.integers(0, n, examples), [f"{name} {i}" for i in range(n)]
        )
        for name, n in GROUPS.items()
    }
    study: Study = {}
    for arm in ("teacher", "student", *(f"distilled T={t}" for t in TEMPERATURES)):
        accuracy = 0.8 if arm == "teacher" else 0.7
        study[arm] = []
        for _ in range(SEEDS):
            wrong = 0.8 * difficulty + 0.2 * rng.random(examples) > accuracy
            other = (labels + rng.integers(1, classes, examples)) % classes
            study[arm].append(
                pd.DataFrame(
                    {
                        "id": np.arange(examples),
                        "label": labels,
                        "prediction": np.where(wrong, other, labels),
                    }
                    | columns
                )
            )
    return study


def class_wise(study: Study) -> None:
    """Every test of every distilled arm against teacher and student."""
    arms = {name: arm_accuracies(tables) for name, tables in study.items()}
    for name, arm in arms.items():
        if name.startswith("distilled"):
            for reference in ("teacher", "student"):
                compare_classes(arms[reference], arm)


def class_wise_pairs(study: Study) -> None:
    """McNemar's test of every distilled model against the teacher and student of its seed."""
    for name, tables in study.items():
        if name.startswith("distilled"):
            for reference in ("teacher", "student"):
                for own, other in zip(study[reference], tables, strict=True):
                    mcnemar_by_class(own, other)


def disagreements(study: Study) -> None:
    """Disagreement of every distilled arm with teacher and student."""
    for name, tables in study.items():
        if name.startswith("distilled"):
            for reference in ("teacher", "student"):
                disagreement_over_seeds(study[reference], tables)


def bootstrap(arms: Study) -> None:
    """Intervals of arms for the three attributes, all arms in the same draws."""
    for attribute in GROUPS:
        bootstrap_fairness(arms, attribute, draws=DRAWS).table()


def bootstrap_each(study: Study) -> None:
    """Intervals of every model alone."""
    for tables in study.values():
        for table in tables:
            bootstrap({"model": [table]})


def parity(arms: Study) -> None:
    """Permutation null of arms for the three attributes."""
    for attribute in GROUPS:
        parity_null(arms, attribute)


def fairlearn_metrics(table: pd.DataFrame) -> None:
    """DPD and EOD of one table by fairlearn, for the three attributes."""
    for attribute in GROUPS:
        arguments = (table["label"], table["prediction"])
        demographic_parity_difference(*arguments, sensitive_features=table[attribute])
        equalized_odds_difference(*arguments, sensitive_features=table[attribute])


def our_metrics(table: pd.DataFrame) -> None:
    """All group fairness metrics of one table, for the three attributes."""
    for attribute in GROUPS:
        fairness_metrics(table, attribute)


def decisions_of(model: int, shift: float) -> pd.DataFrame:
    """Decisions and logits on as many people as the data of COMPAS have, with its groups' sizes."""
    rng = np.random.default_rng(0)
    columns = {
        "sex": rng.choice(["f", "m"], ROWS, p=[0.19, 0.81]),
        "race": rng.choice(list("abcdef"), ROWS, p=[0.514, 0.341, 0.082, 0.056, 0.005, 0.002]),
        "age": rng.choice(["under 25", "25 to 45", "over 45"], ROWS, p=[0.22, 0.57, 0.21]),
    }
    labels, shared = (rng.random(ROWS) < 0.455).astype(int), rng.normal(size=ROWS)
    score = 1.6 * (labels - 0.5) + shared + shift * (columns["race"] == "a")
    score = score + 0.5 * np.random.default_rng(model).normal(size=ROWS)
    logits = np.stack([-score / 2, score / 2], axis=1).astype(np.float32)
    known = {"id": np.arange(ROWS), "label": labels, "prediction": logits.argmax(axis=1)}
    return pd.DataFrame(known | {"logits": list(logits)} | columns)


def compared(seeds: int) -> None:
    """What the command `compare` does, apart from reading files and loading libraries."""
    a, b = (
        [decisions_of(10 * side + seed + 1, 0.3 + 0.2 * side) for seed in range(seeds)]
        for side in (0, 1)
    )
    compare(a, b)


def timed(part: str, target: float | None, work: Callable[[], None]) -> Row:
    """Runs a part once and prints its line."""
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    row = Row(part, time.perf_counter() - start, time.process_time() - cpu_start, target)
    aim = "" if target is None else f"target {target:g} s"
    print(f"{row.part:<76}{row.seconds:8.3f} s  cpu {row.cpu_seconds:7.3f} s  {aim}", flush=True)
    return row


def measure(classes: int, examples: int) -> list[Row]:
    """All parts: the class-wise ones on many classes, group fairness on two and on many."""
    many, two = synthetic_study(classes, examples), synthetic_study(2, examples)
    pair = {name: many[name][:1] for name in ("student", "distilled T=5")}
    arms = {name: two[name] for name in ("student", "distilled T=5")}
    models = (2 + len(TEMPERATURES)) * SEEDS
    shape = f"{classes:,} classes x {examples:,}"
    draws = f"{len(GROUPS)} attributes, {DRAWS:,} draws"
    return [
        timed(f"class-wise tests and permutations, {shape}", 5.0, lambda: class_wise(many)),
        timed(f"McNemar of 130 pairs, {shape}", None, lambda: class_wise_pairs(many)),
        timed(f"disagreement of 26 pairs of arms, {shape}", None, lambda: disagreements(many)),
        timed(
            f"bootstrap, 1 model, 2 classes, {draws}",
            5.0,
            lambda: bootstrap({"m": two["student"][:1]}),
        ),
        timed(
            f"bootstrap, {models} models one by one, 2 classes, {draws}",
            None,
            lambda: bootstrap_each(two),
        ),
        timed(
            f"two-way bootstrap, 2 arms of 5 seeds, 2 classes, {draws}",
            5.0,
            lambda: bootstrap(arms),
        ),
        timed(
            f"bootstrap, 1 pair, {classes:,} classes one-vs-rest, {draws}",
            5.0,
            lambda: bootstrap(pair),
        ),
        timed(
            "parity null, 2 arms of 5 seeds, 2 classes, 1,000 permutations",
            None,
            lambda: parity(arms),
        ),
        timed(
            f"compare, 1 pair, 2 classes x {ROWS:,}, 3 attributes and their pairs",
            4.0,
            lambda: compared(1),
        ),
        timed(
            f"compare, 5 pairs of seeds, 2 classes x {ROWS:,}, 3 attributes and their pairs",
            None,
            lambda: compared(5),
        ),
        timed(
            "DPD and EOD of one table, fairlearn",
            None,
            lambda: fairlearn_metrics(two["student"][0]),
        ),
        timed(
            "all fairness metrics of one table, kdplatform",
            None,
            lambda: our_metrics(two["student"][0]),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the classes and examples")
    parser.add_argument("--out", type=Path, default=Path("analysis_benchmark.json"))
    options = parser.parse_args()
    divisor = 10 if options.small else 1
    rows = measure(1000 // divisor, 50_000 // divisor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB, target 2048 MiB")
    result = {
        "rows": [asdict(row) for row in rows],
        "peak_mebibytes": peak,
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "fairlearn": fairlearn.__version__,
        },
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
