"""Whole commands on image files that are streamed, and on a table."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from helpers.dataset_files import write_image

from kdplatform import cli
from kdplatform.experiments import workspace
from kdplatform.experiments.executors.base import Assignment
from kdplatform.experiments.executors.worker import run_step
from kdplatform.experiments.graph import teacher_step
from kdplatform.settings.project import load_project

pytestmark = pytest.mark.usefixtures("spared")

STREAMED = {
    "dataset__name": "imagefolder",
    "dataset__storage": "stream",
    "dataset__workers": 1,
    "dataset__image_size": 16,
    "teacher__epochs": 1,
    "student__epochs": 1,
    "student__augmentation__random_resized_crop": "true",
    "attributes": "place",
}


@pytest.fixture
def images(new_place: Any) -> dict[str, object]:
    """Parameters of a command on two classes of twenty images with an attribute."""
    root = new_place.folder / "images"
    lines = ["file,place"]
    for number in range(40):
        file = f"{'ab'[number % 2]}/{number}.png"
        write_image(root / file, number, 24, 20)
        lines.append(f"{file},{'in' if number % 3 else 'out'}")
    (root / "attributes.csv").write_text("\n".join(lines))
    return STREAMED | {"dataset__root": root}


def test_streamed_and_augmented_images_are_distilled_logged_and_reused(
    new_place: Any, images: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_place.run("distill", **images) == 0
    assert "DPD place" in capsys.readouterr().out
    [distilled] = new_place.runs("distilled")
    table = new_place.predictions(distilled)
    assert len(table) == 8
    assert set(table["place"]) <= {"in", "out"}
    # Every student asks the teacher itself, because no two epochs show the same crops.
    assert not list((new_place.home / "teacher_logits").glob("*.np[yz]"))
    # Where images lie is no part of what a run is.
    assert new_place.run("distill", **images | {"dataset__workers": 0}) == 0
    assert len(new_place.runs()) == 3


def test_an_image_that_no_longer_decodes_ends_the_command_in_one_line(
    new_place: Any, images: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_place.run("teacher", **images) == 0
    # The dataset of the first command is still loaded: the file is damaged after it was checked.
    (new_place.folder / "images" / "a" / "0.png").write_bytes(b"x")
    capsys.readouterr()
    assert new_place.run("student", **images, reuse="false") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("kdplatform: image '")
    # Not what loading the dataset says.
    assert last.endswith(
        "a/0.png' cannot be decoded (cannot identify image file "
        f"'{new_place.folder}/images/a/0.png')"
    )


def table_parameters(folder: Path, attribute: str) -> dict[str, object]:
    """Parameters of a command on a table of sixty rows, one with a missing cell."""
    path = folder / "people.csv"
    rows = [f"{row or ''},{'ab'[row % 2]},{'yes' if row % 3 else 'no'}" for row in range(60)]
    path.write_text("\n".join([f"age,{attribute},answer", *rows]))
    return {
        "dataset__name": "table",
        "dataset__file": path,
        "dataset__label": "answer",
        "dataset__attributes": attribute,
        "attributes": attribute,
        "teacher__model": "mlp_large",
        "student__model": "mlp_small",
    }


def test_a_table_is_distilled_and_compared(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    attribute = "sex (m & f)"  # no name that MLflow takes for a metric
    parameters = table_parameters(new_place.folder, attribute)
    assert new_place.run("distill", **parameters) == 0
    assert f"DPD {attribute}" in capsys.readouterr().out
    assert len(new_place.runs()) == 3
    sides = [new_place.runs(role)[0].info.run_id for role in ("student", "distilled")]
    assert cli.main(["compare", *sides, "--min_group_size", "1"]) == 0
    assert f"\n{attribute}: 2 groups" in capsys.readouterr().out


def test_a_column_that_is_not_named_as_an_attribute_says_how(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = table_parameters(new_place.folder, "sex") | {"dataset__attributes": "none"}
    assert new_place.run("distill", **parameters) == 2
    assert capsys.readouterr().err.endswith(
        "attributes='sex' does not exist; known: none; dataset.attributes names the columns that "
        "are attributes\n"
    )


def test_a_worker_does_not_repeat_what_the_command_said_of_the_data(
    new_place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store is named by the environment; what a worker sets would outlive this test.
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    assert new_place.run("teacher", **table_parameters(new_place.folder, "sex")) == 0
    assert "table: missing cells: age 1" in capsys.readouterr().err
    [run] = new_place.runs("teacher")
    settings = load_project(str(new_place.artifact(run, "config.yaml")))
    workspace._loaded_dataset.cache_clear()  # as in a process of its own
    step = teacher_step(settings, 1, workspace._loaded_dataset(settings.dataset, Path()).digest)
    workspace._loaded_dataset.cache_clear()
    outcome = run_step(
        Assignment(
            config=settings,
            step=step,
            runs={},
            folder=new_place.home,
            device="cpu",
            reuse=True,
            tracking_uri=new_place.uri,
            parent_run_id=run.data.tags["mlflow.parentRunId"],
        )
    )
    assert [message.partition(":")[0] for message in outcome.messages] == [step.title]
