"""Teachers that are not trained from fresh weights: the user's own, former runs, published ones."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.damage import Touch, with_records
from helpers.refusals import last_line

from kdplatform.experiments import weights
from kdplatform.experiments.graph import teacher_step
from kdplatform.settings.project import load_project

OWN = """\
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, images):
        assert images.dtype == torch.uint8
        return images.float().mean(dim=(1, 2, 3), keepdim=False)[:, None] * self.scale

def brightness(data):
    return Brightness(data.num_classes)

def wrong_classes(data):
    return Brightness(data.num_classes + 1)
"""
DIGITS = {"dataset__name": "digits", "attributes": "none", "student__epochs": 1}


@pytest.fixture
def place(new_place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    (new_place.folder / "own_teachers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(new_place.folder))
    monkeypatch.delitem(sys.modules, "own_teachers", raising=False)
    weights._of_run.cache_clear()
    weights._of_uri.cache_clear()
    return new_place


def test_a_function_of_the_users_teaches_as_it_is(place: Any) -> None:
    teacher = {"teacher__model": "own_teachers:brightness", "teacher__frozen": "true"}
    assert place.run("distill", **DIGITS, **teacher) == 0
    (run,) = place.runs("teacher")
    metrics = run.data.metrics
    assert not any(name.startswith("epoch/") for name in metrics)
    assert metrics["test/accuracy"] == pytest.approx(0.1, abs=0.05)
    assert place.artifact(run, "weights.pt").is_file()
    assert len(place.runs("distilled", "FINISHED")) == 1
    assert "teacher.epochs" not in run.data.params


def test_what_is_no_classifier_is_refused(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = {"teacher__model": "own_teachers:wrong_classes", "teacher__frozen": "true"}
    assert place.run("teacher", **DIGITS, **teacher) == 2
    assert "returned (2, 11); allowed: logits of shape (2, 10)" in capsys.readouterr().err


def test_a_former_teacher_predicts_what_it_did(place: Any, spared: None) -> None:
    assert place.run("teacher", **DIGITS, teacher__epochs=1) == 0
    (former,) = place.runs("teacher")
    frozen = {**DIGITS, "teacher__frozen": "true"}
    assert place.run("distill", **frozen, teacher__weights=former.info.run_id) == 0
    _, again = place.runs("teacher")
    pd.testing.assert_frame_equal(place.predictions(again), place.predictions(former))
    # The same weights by another name are the same run.
    for name in (f"runs:/{former.info.run_id}/weights.pt", place.artifact(former, "weights.pt")):
        assert place.run("teacher", **frozen, teacher__weights=name) == 0
    assert len(place.runs("teacher")) == 2


def test_a_logged_model_gives_its_weights_and_nothing_else_of_it_is_opened(place: Any) -> None:
    assert place.run("teacher", **DIGITS, teacher__epochs=1) == 0
    (former,) = place.runs("teacher")
    (graph,) = place.folder.rglob("*.pt2")
    planted = pickle.dumps(Touch(place.folder / "ran"))
    with_records(
        graph.rename(graph.with_suffix(".old")),
        graph,
        lambda name, content: planted if name.endswith("/sample_inputs/model.pt") else content,
    )
    taken = {"teacher__weights": f"runs:/{former.info.run_id}/teacher", "teacher__frozen": "true"}
    assert place.run("teacher", **DIGITS, **taken) == 0
    again = place.runs("teacher")[-1]
    pd.testing.assert_frame_equal(place.predictions(again), place.predictions(former))
    assert not (place.folder / "ran").exists()


def test_published_weights_are_tuned_on_images_of_another_size(
    place: Any, spared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import resnet18

    monkeypatch.setenv("TORCH_HOME", str(place.folder / "torch"))
    published = place.folder / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    published.parent.mkdir(parents=True)
    torch.save(resnet18(num_classes=1000).state_dict(), published)
    teacher = {"teacher__model": "resnet18", "teacher__pretrained": "true"}
    fast = {"teacher__image_size": 65, "teacher__epochs": 1, "student__epochs": 1}
    assert place.run("distill", **teacher, **fast) == 0
    (run,) = place.runs("teacher")
    assert run.data.tags["kd.image_size"] == "65"
    state = torch.load(place.artifact(run, "weights.pt"), weights_only=True)
    # Normalised as the photographs were that the weights were trained on.
    torch.testing.assert_close(state["mean"], torch.tensor([0.485, 0.456, 0.406]))
    assert state["model.fc.weight"].shape == (3, 512)
    assert len(place.runs("distilled", "FINISHED")) == 1


def refusal(place: Any, capsys: pytest.CaptureFixture[str], **parameters: object) -> str:
    capsys.readouterr()
    assert place.run("teacher", **DIGITS, **parameters) == 2
    return last_line(capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda path: path.write_bytes(b"PK no zip"), "cannot be read"),
        (lambda path: torch.save({"weight": 3}, path), "hold no state dict"),
        (lambda path: torch.save([torch.zeros(2)], path), "hold no state dict"),
        (lambda path: torch.save({"weight": torch.zeros(2)}, path), "are missing"),
        (lambda path: None, "is no file"),
    ],
)
def test_bad_files_are_refused(
    place: Any, capsys: pytest.CaptureFixture[str], content: Callable[[Path], object], said: str
) -> None:
    path = place.folder / "given.pt"
    content(path)
    assert said in refusal(place, capsys, teacher__weights=path, teacher__frozen="true")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0" * 32, "not in the tracking store"),
        ("runs:/" + "0" * 32 + "/teacher", "cannot be found"),
        ("models:/nobody/1", "cannot be found"),
        ("given.onnx", "is not understood"),
    ],
)
def test_weights_that_are_nowhere(
    place: Any, capsys: pytest.CaptureFixture[str], given: str, said: str
) -> None:
    assert said in refusal(place, capsys, teacher__weights=given, teacher__frozen="true")


def test_another_architectures_run_is_refused(
    place: Any, spared: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("teacher", **DIGITS, teacher__epochs=1) == 0
    given = place.runs("teacher")[0].info.run_id
    said = refusal(place, capsys, teacher__weights=given, teacher__model="resnet20")
    assert "are those of model='lenet5'" in said


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"teacher__frozen": "true"}, "frozen=True is not allowed for fresh weights"),
        ({"teacher__pretrained": "true"}, "not allowed with model='lenet5'; allowed: with bert"),
        (
            {"teacher__model": "resnet50", "teacher__pretrained": "true", "teacher__weights": "a"},
            "pretrained and weights are given",
        ),
        ({"teacher__model": "own:model", "teacher__image_size": "9"}, "inputs of its own"),
        (
            {
                "student__model": "resnet50",
                "student__pretrained": "true",
                "student__frozen": "true",
            },
            "students train",
        ),
    ],
)
def test_fields_that_contradict_each_other(
    place: Any, capsys: pytest.CaptureFixture[str], parameters: dict[str, str], said: str
) -> None:
    assert said in refusal(place, capsys, **parameters)


def test_a_frozen_teachers_key_knows_neither_seed_nor_recipe(place: Any) -> None:
    def key(seed: int, **overrides: str) -> str:
        fields = {f"teacher.{name}": value for name, value in overrides.items()}
        fields |= {"teacher.model": "resnet50", "teacher.pretrained": "true"}
        return teacher_step(load_project(place.project, fields), seed, "digest").key

    frozen = key(0, frozen="true")
    assert key(1, frozen="true", epochs="7") == frozen
    assert key(1) != key(0) != frozen
