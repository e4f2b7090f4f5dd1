"""Runs log the examples that their student changed; reports believe only what can be shown."""

import base64
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from kdplatform.data import Dataset, Split
from kdplatform.experiments.examples import EXAMPLES, log_examples, stored_previews
from kdplatform.predictions import Predictions

N = 200
PNG = b"\x89PNG\r\n\x1a\nrest"


def table(wrong: range, certain: float = 1.0) -> Predictions:
    labels = np.arange(N) % 2
    predicted = np.where(np.isin(np.arange(N), wrong), 1 - labels, labels)
    logits = np.zeros((N, 2), dtype=np.float32)
    # The later an example, the surer the models are of it.
    logits[np.arange(N), predicted] = certain + np.arange(N) / 50
    columns = {"id": np.arange(N), "label": labels, "prediction": predicted}
    frame = pd.DataFrame(columns | {"sex": np.array(["f", "m"])[np.arange(N) // 2 % 2]})
    return Predictions.of(frame.assign(logits=list(logits)))


def dataset(side: int = 8) -> Dataset:
    images = torch.randint(0, 255, (N, 3, side, side), dtype=torch.uint8)
    test = table(range(0))
    split = Split(images, torch.tensor(test.labels.tolist()), np.arange(N), test.columns)
    return Dataset("any", "0" * 64, ("cat", "dog"), ("sex",), split, split, split)


def logged(place: Any, data: Dataset, references: dict[str, Predictions]) -> tuple[str, list[Any]]:
    with mlflow.start_run() as run:
        log_examples(data, table(range(100, N)), references)
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=EXAMPLES)
    return run.info.run_id, json.loads(Path(path).read_text())["examples"]


def test_a_run_logs_the_surest_changes_of_every_class_and_group(new_place: Any) -> None:
    run_id, found = logged(new_place, dataset(), {"teacher": table(range(50))})
    ids = [int(entry["id"]) for entry in found]
    lost, won = ids[:12], ids[12:]
    # Both models are surest of the last ones; of each class and group three are taken.
    assert sorted(lost) == list(range(188, 200))
    assert sorted(won) == list(range(38, 50))
    previews = stored_previews([run_id])
    assert set(previews) == set(map(str, ids))
    assert all(own.image.startswith("data:image/png;base64,iVBOR") for own in previews.values())


def test_what_is_logged_stays_small(new_place: Any) -> None:
    teachers = {"teacher": table(range(50)), "student": table(range(10, 60))}
    _, found = logged(new_place, dataset(64), teachers)
    assert 0 < len(found) < 48
    assert sum(len(json.dumps(entry)) for entry in found) <= 256_000


def stored(content: object) -> str:
    with mlflow.start_run() as run:
        text = content if isinstance(content, str) else json.dumps(content)
        mlflow.log_text(text, EXAMPLES)
    return str(run.info.run_id)


def entry(**fields: object) -> dict[str, object]:
    return {"examples": [{"id": 7, **fields}]}


def test_texts_and_rows_are_read(new_place: Any) -> None:
    runs = [
        stored(entry(text="two\nlines")),
        stored({"examples": [{"id": "8", "cells": [["sex", "f"]]}]}),
    ]
    found = stored_previews(runs)
    assert found["7"].text == "two lines"
    assert found["8"].cells == [("sex", "f")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ({"examples": 3}, "no list"),
        ({}, "examples"),
        ([], "list"),
        (entry(), "cells"),
        (entry(image=base64.b64encode(b"<svg onload='x'/>").decode()), "neither PNG nor JPEG"),
        (entry(image="not base64 \u202e"), ""),
        (entry(text="x" * 2_000_000), "more than 1024000 bytes"),
    ],
)
def test_what_cannot_be_shown_is_said_and_left_out(
    new_place: Any, content: object, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = stored(content)
    sound = stored(entry(image=base64.b64encode(PNG).decode()))
    assert set(stored_previews([run_id, sound])) == {"7"}
    said = capsys.readouterr()
    [line] = [own for own in (said.out + said.err).splitlines() if EXAMPLES in own]
    assert line.startswith(f"run {run_id}: its {EXAMPLES} cannot be read (")
    assert reason in line


def test_runs_without_examples_are_passed_over(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with mlflow.start_run() as run:
        pass
    assert stored_previews([run.info.run_id]) == {}
    assert EXAMPLES not in capsys.readouterr().err
