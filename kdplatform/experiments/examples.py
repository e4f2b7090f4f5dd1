"""The examples that a distilled student changed: logged by its run, read by reports.

A report has no data, and a run does not know other seeds. Each run therefore logs the changed
examples of which the models are most certain, because other seeds most probably agree on them. A
report chooses among them by the predictions of all seeds.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from itertools import zip_longest

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from scipy import special

from kdplatform.analysis.tables import attribute_groups
from kdplatform.data import Dataset
from kdplatform.data._previews import Preview, previews
from kdplatform.experiments.artifacts import artifact_path
from kdplatform.files import scratch_folder
from kdplatform.predictions import FloatArray, IntArray, Predictions
from kdplatform.progress import say
from kdplatform.reporting.gallery import Shown
from kdplatform.stores import reason_of

EXAMPLES = "examples/changed.json"
_MOST_EACH_WAY = 12
_MOST_BYTES = 256_000
_MOST_READ = 4 * _MOST_BYTES
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


def log_examples(
    dataset: Dataset, test: Predictions, references: Mapping[str, Predictions]
) -> None:
    """Logs to the active run the examples that only its student or only a reference gets right.

    Args:
        test: the student's predictions of the test split, in the order of the split.
        references: those of the teacher and the NDS, in any order of rows.
    """
    rows: list[int] = []
    for reference in references.values():
        own = reference.aligned(test)
        for right, wrong in ((own, test), (test, own)):
            rows += _surest(dataset, right, wrong)
    chosen = np.array(list(dict.fromkeys(rows)), dtype=np.int64)
    examples, size = [], 0
    for row, preview in zip(chosen, previews(dataset, chosen), strict=True):
        entry = {"id": str(test.ids[row]), **_written(preview)}
        size += len(json.dumps(entry))
        if size > _MOST_BYTES:
            break
        examples.append(entry)
    with scratch_folder() as folder:
        path = folder / EXAMPLES
        path.parent.mkdir()
        path.write_text(json.dumps({"examples": examples}), encoding="utf-8")
        mlflow.log_artifacts(str(folder))


def _surest(dataset: Dataset, right: Predictions, wrong: Predictions) -> list[int]:
    """Rows that only one of two models gets right, from every class and group in turn."""
    rows = np.flatnonzero(right.correct & ~wrong.correct)
    certainty = _probability(right, right.labels) + _probability(wrong, wrong.predictions)
    rows = rows[np.argsort(-certainty[rows], kind="stable")]
    groups = [attribute_groups(right, name).codes for name in dataset.attributes[:1]]
    cells: dict[tuple[int, ...], list[int]] = {}
    for row in rows.tolist():
        cell = (int(right.labels[row]), *(int(codes[row]) for codes in groups))
        cells.setdefault(cell, []).append(row)
    turns = [row for turn in zip_longest(*cells.values()) for row in turn if row is not None]
    return turns[:_MOST_EACH_WAY]


def _probability(table: Predictions, classes: IntArray) -> FloatArray:
    """The probability that a model gives to a class of every example."""
    if table.logits is None:
        return np.zeros(len(table))
    probabilities = special.softmax(table.logits.astype(float), axis=1)
    return np.asarray(probabilities[np.arange(len(table)), classes])


def _written(preview: Preview) -> dict[str, object]:
    if preview.image:
        return {"image": base64.b64encode(preview.image).decode()}
    return {"text": preview.text} if preview.text else {"cells": preview.cells}


def stored_previews(run_ids: Iterable[str]) -> dict[str, Shown]:
    """Returns the examples that runs logged, by id.

    Invalid content is named and left out, so that the report is still written.
    """
    found: dict[str, Shown] = {}
    for run_id in run_ids:
        try:
            path = artifact_path(run_id, EXAMPLES)
        except (OSError, MlflowException):
            continue  # the run is older than the gallery, or has no distilled student
        try:
            if path.stat().st_size > _MOST_READ:
                raise ValueError(f"it has more than {_MOST_READ} bytes")
            found |= _read(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            say(f"run {run_id}: its {EXAMPLES} cannot be read ({reason_of(error)})")
    return found


def _read(content: Mapping[str, object]) -> dict[str, Shown]:
    entries = content["examples"]
    if not isinstance(entries, list):
        raise ValueError("its examples are no list")
    return {str(entry["id"]): _shown(entry) for entry in entries}


def _shown(entry: Mapping[str, object]) -> Shown:
    if "image" in entry:
        return Shown(image=_address(str(entry["image"])))
    if "text" in entry:
        return Shown(text=" ".join(str(entry["text"]).split()))
    cells = entry["cells"]
    if not isinstance(cells, list):
        raise ValueError("its cells are no list")
    return Shown(cells=[(str(name), str(value)) for name, value in cells])


def _address(encoded: str) -> str:
    """Returns an image as a `data:` URL for a page.

    Raises:
        ValueError: it is neither PNG nor JPEG; other formats, such as SVG, can contain scripts.
    """
    content = base64.b64decode(encoded, validate=True)
    for beginning, kind in _KINDS.items():
        if content.startswith(beginning):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    raise ValueError("an image is neither PNG nor JPEG")
