"""Teachers from files: by ids, exact at every temperature, refused in one line otherwise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, Split
from kdplatform.data._unlabeled import with_hidden_labels
from kdplatform.experiments.graph import Step, distilled_step
from kdplatform.experiments.logits_files import (
    FileLogits,
    check_file_teacher,
    file_logits,
    file_teacher,
)
from kdplatform.methods import Batch
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import TrainingConfig

CLASSES = 4


def split(first: int, count: int, named: bool = False) -> Split:
    ids = np.arange(first, first + count)
    names = np.array([f"cat/{number}.png" for number in ids]) if named else None
    labels = torch.from_numpy(ids % CLASSES)
    columns = pd.DataFrame({"color": ["red", "blue"] * (count // 2)})
    return Split(torch.zeros(count, 1), labels, ids, columns, names)


def data(named: bool = False) -> Dataset:
    splits = split(0, 12, named), split(12, 4, named), split(16, 8, named)
    by = "file" if named else "id"
    return Dataset("toy", f"toy {named}", tuple("abcd"), ("color",), *splits, named_by=by)


LOGITS = np.random.default_rng(0).normal(size=(24, CLASSES)).astype(np.float32) * 3


def frame(rows: slice = slice(None), **columns: Any) -> pd.DataFrame:
    table = pd.DataFrame({"id": np.arange(24), "logits": list(LOGITS)})
    return table.assign(**columns)[rows]


def step(path: Path, table: pd.DataFrame, temperature: float = 1.0) -> Step:
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    fields = {"model": "lenet5", "logits": (str(path),), "logits_temperature": temperature}
    return Step(Role.TEACHER, 0, TrainingConfig.model_validate(fields), "key")


def read(
    folder: Path, table: pd.DataFrame, dataset: Dataset | None = None, **more: Any
) -> FileLogits:
    return file_logits(step(folder / "file.parquet", table, **more), dataset or data())


# ---- by ids


def test_rows_are_found_by_their_ids_in_whatever_order(tmp_path: Path) -> None:
    known = read(tmp_path, frame().sample(frac=1, random_state=0))
    assert set(known.splits) == {"train", "val", "test"}
    torch.testing.assert_close(known.splits["train"], torch.from_numpy(LOGITS[:12]), rtol=0, atol=0)
    torch.testing.assert_close(known.splits["test"], torch.from_numpy(LOGITS[16:]), rtol=0, atol=0)


def test_a_csv_keeps_every_bit(tmp_path: Path) -> None:
    texts = [str([float(value) for value in row]) for row in LOGITS]
    known = file_logits(step(tmp_path / "file.csv", frame(logits=texts)), data())
    assert torch.equal(known.splits["train"], torch.from_numpy(LOGITS[:12]))


def test_images_of_folders_go_by_their_paths(tmp_path: Path) -> None:
    table = frame().rename(columns={"id": "file"})
    table["file"] = [f"cat/{number}.png" for number in table["file"]]
    known = read(tmp_path, table, data(named=True))
    assert torch.equal(known.splits["val"], torch.from_numpy(LOGITS[12:16]))
    assert_refused(read, tmp_path, "has no column 'file'", frame(), data(named=True))


def test_a_file_may_have_training_rows_alone(tmp_path: Path) -> None:
    known = read(tmp_path, frame(slice(12)))
    assert set(known.splits) == {"train"}
    assert read(tmp_path, frame(slice(20))).partly == {"test": 4}


def test_rows_of_no_example_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = pd.concat([frame(), frame(slice(4)).assign(id=[90, 91, 92, 93])])
    read(tmp_path, more)
    assert "4 of 28 rows are of no example of the dataset (id 90, 91, 92, ...)" in (
        capsys.readouterr().err
    )


def test_hidden_labels_have_logits_of_their_own(tmp_path: Path) -> None:
    dataset = with_hidden_labels(data(), 0.5, 0)
    assert dataset.unlabeled is not None
    own = step(tmp_path / "file.parquet", frame())
    teacher = file_teacher(own, dataset)
    for labelled, asked in ((True, dataset.train), (False, dataset.unlabeled)):
        rows = torch.arange(len(asked))
        ids = torch.from_numpy(asked.ids)
        batch = Batch(asked.inputs, asked.labels, ids, rows, labelled=labelled).as_made()
        assert torch.equal(teacher(batch).logits, torch.from_numpy(LOGITS[asked.ids]))


# ---- log-probabilities


def log_probabilities(temperature: float) -> torch.Tensor:
    return (torch.from_numpy(LOGITS) / temperature).log_softmax(1)


@pytest.mark.parametrize("own", [1.0, 4.0])
@pytest.mark.parametrize("asked", [1.0, 3.0])
def test_log_probabilities_are_re_tempered_exactly(
    tmp_path: Path, own: float, asked: float
) -> None:
    table = (
        frame()
        .drop(columns="logits")
        .assign(log_probabilities=list(log_probabilities(own).numpy()))
    )
    known = read(tmp_path, table, temperature=own)
    assert known.only_at is None
    found = (known.splits["train"] / asked).softmax(1)
    expected = (torch.from_numpy(LOGITS[:12]) / asked).softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def most_probable(temperature: float) -> pd.DataFrame:
    logs = log_probabilities(temperature)
    top = logs.topk(2)
    columns = {"classes": list(top.indices.numpy()), "log_probabilities": list(top.values.numpy())}
    return frame().drop(columns="logits").assign(**columns)


def test_the_most_probable_classes_keep_their_probabilities_at_their_own_temperature(
    tmp_path: Path,
) -> None:
    known = read(tmp_path, most_probable(4.0), temperature=4.0)
    assert known.only_at == 4.0
    found = (known.splits["train"] / 4).softmax(1)
    top = log_probabilities(4.0)[:12].topk(2)
    torch.testing.assert_close(found.gather(1, top.indices), top.values.exp())
    rest = found.scatter(1, top.indices, 0.0)
    share = (1 - top.values.exp().sum(1, keepdim=True)) / 2
    torch.testing.assert_close(rest, share.expand(-1, 4).scatter(1, top.indices, 0.0))


# ---- what students can learn from it


def student(**fields: str) -> Step:
    return distilled_step(load_project("digits", fields), 0, "digits")


def asked_of(known: FileLogits, **fields: str) -> None:
    step = student(**fields)
    teacher = SimpleNamespace(training=TrainingConfig(model="lenet5", logits=("f.csv",)))  # type: ignore[call-arg]
    needs = {TEACHER_NAME: teacher}
    object.__setattr__(step, "needs", needs)
    check_file_teacher(known, step, needs_val=False, needs_unlabeled=False)


TEACHER_NAME = "teacher"
WHOLE = FileLogits({"train": torch.zeros(1, 2)}, {}, None)


def test_the_most_probable_classes_teach_at_their_own_temperature_alone() -> None:
    few = FileLogits(WHOLE.splits, {}, 4.0)
    asked_of(few, temperature="4")
    asked_of(WHOLE, temperature="2")
    for fields, said in (({"temperature": "2"}, "T=2"), ({"method": "cist"}, "no temperature")):
        with pytest.raises(Exception, match=f"other temperatures, and method=.* has {said}"):
            asked_of(few, **fields)


def test_changed_images_have_no_logits() -> None:
    with pytest.raises(Exception, match=r"student\.augmentation changes them"):
        asked_of(WHOLE, **{"student.augmentation.horizontal_flip": "true"})


def test_a_split_that_a_method_asks_about_must_be_there() -> None:
    step = student()
    with pytest.raises(Exception, match="lacks examples of val, which method='kd' asks"):
        check_file_teacher(WHOLE, step, needs_val=True, needs_unlabeled=False)


# ---- what is refused


def wrong(**columns: Any) -> pd.DataFrame:
    return frame(**columns)


NAN = [
    row if place else np.array([np.nan, 0, 0, 0], dtype=np.float32)
    for place, row in enumerate(LOGITS)
]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame(slice(5, 24)), r"lacks 5 of 12 training examples \(id 0, 1, 2, \.\.\.\)"),
        (pd.concat([frame(), frame(slice(2))]), r"2 ids occur twice \(id 0, 1\)"),
        (frame(logits=NAN), r"logits of 1 examples are NaN or infinite \(0\)"),
        (frame(logits=list(LOGITS[:, :3])), "logits of 3 numbers, the dataset has 4 classes"),
        (frame(logits=list(np.full((24, 4), 0.25))), "they are probabilities"),
        (frame().drop(columns="logits"), "has neither logits nor log_probabilities"),
        (frame(log_probabilities=list(LOGITS)), "has both logits and log_probabilities"),
        (frame().drop(columns="id"), r"has no column 'id' \(its columns: logits\)"),
        (frame(id=[f"x{n}" for n in range(24)]), "24 ids are no whole numbers"),
        (frame(id=[np.inf, *range(1, 24)]), r"1 ids are no whole numbers \(inf\)"),
        (frame(slice(0)), "has no rows"),
        (frame(logits=[[1e39, 0.0, 0.0, 0.0]] * 24), "logits of 24 examples are NaN or infinite"),
        (
            frame().rename(columns={"logits": "log_probabilities"}),
            "those of no distribution",
        ),
    ],
)
def test_files_of_another_kind_are_refused(
    tmp_path: Path, table: pd.DataFrame, message: str
) -> None:
    assert_refused(read, tmp_path, message, table)


@pytest.mark.parametrize("classes", [["a", "b"], None])
def test_classes_that_are_no_list_of_numbers_are_refused(tmp_path: Path, classes: Any) -> None:
    top = most_probable(1.0)
    top["classes"] = [own if row else classes for row, own in enumerate(top["classes"])]
    top = top.assign(classes=[classes] * 24) if classes else top
    assert_refused(read, tmp_path, "row 1: classes or log_probabilities are no list", top)


def test_logits_have_no_temperature(tmp_path: Path) -> None:
    assert_refused(read, tmp_path, "is for log_probabilities", frame(), temperature=4.0)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    own = step(tmp_path / "file.parquet", frame())
    (tmp_path / "file.parquet").write_text("nothing")
    assert_refused(file_logits, own, "cannot be read as Parquet", data())


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "file.parquet"
    own = step(path, frame())
    named = {b"kdplatform.classes": json.dumps(list("badc")).encode()}
    pq.write_table(pa.Table.from_pandas(frame()).replace_schema_metadata(named), path)
    assert_refused(file_logits, own, "has the classes b, a, d, ..., the dataset a, b, c", data())
