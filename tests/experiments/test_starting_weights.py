"""Teachers that are not trained from fresh weights: the user's own, former runs, published ones."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.damage import Touch, with_records
from helpers.facts import image_facts
from helpers.refusals import last_line, refusal_of

from kdplatform.data import DataFacts, Dataset, load_dataset
from kdplatform.experiments import starting, weights, workspace
from kdplatform.experiments.graph import Step, teacher_step
from kdplatform.experiments.starting import starting_model
from kdplatform.models import build_model
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

def not_finite(data):
    model = Brightness(data.num_classes)
    model.scale.data[3] = float("nan")
    return model

def overflowing(data):
    model = Brightness(data.num_classes)
    model.scale.data[:] = 3e38
    return model

def loaded(data):
    model = Brightness(data.num_classes)
    model.load_state_dict(torch.load("own.pt", weights_only=True))
    return model

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


def test_a_teacher_that_loads_other_weights_is_another_teacher(
    place: Any, spared: None, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {"teacher__model": "own_teachers:loaded", "teacher__frozen": "true"}
    for command, scale in (("distill", 1.0), ("teacher", 1.0), ("distill", -1.0)):
        torch.save({"scale": torch.full((10,), scale)}, place.folder / "own.pt")
        assert place.run(command, **DIGITS, **teacher) == 0
    assert [len(place.runs(role)) for role in ("teacher", "student", "distilled")] == [2, 1, 2]
    said = "was made with other weights (weights that own_teachers:loaded returned)"
    assert said in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused_before_its_teacher_is_trained(
    place: Any, spared: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for student in ("os:getcwd", "own_teachers:wrong_classes"):
        assert place.run("distill", **DIGITS | {"student__model": student}) == 2
        assert last_line(capsys).startswith(f"model={student!r} ")
    crops = {"student__augmentation__random_resized_crop": "true"}
    assert place.run("sweep", **DIGITS, **crops) == 2
    assert "is not allowed for images in memory" in last_line(capsys)
    assert place.runs() == []


def test_what_is_no_classifier_is_refused(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = {"teacher__model": "own_teachers:wrong_classes", "teacher__frozen": "true"}
    assert place.run("teacher", **DIGITS, **teacher) == 2
    assert "returned (2, 11); allowed: logits of shape (2, 10)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            "not_finite",
            ": 1 of the 10 numbers of scale are NaN or infinite",
        ),
        (
            "overflowing",
            " give logits that are NaN or infinite; allowed with frozen=true: ",
        ),
    ],
)
def test_a_model_as_it_is_that_is_not_finite_is_named(
    place: Any, capsys: pytest.CaptureFixture[str], function: str, expected: str
) -> None:
    teacher = {"teacher__model": f"own_teachers:{function}", "teacher__frozen": "true"}
    assert f"'own_teachers:{function}'{expected}" in refusal(place, capsys, **teacher)


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


ORDER = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
SURE = {"teacher__model": "mlp_small", "teacher__epochs": 5}


@pytest.fixture
def reordered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the digits' classes stand in another order from now on, or bear other names."""

    def change(renamed: bool = False) -> None:
        known = workspace._loaded_dataset

        def load(*arguments: Any) -> Dataset:
            dataset = known(*arguments)
            names = tuple(np.array(dataset.class_names)[ORDER])
            labels = torch.from_numpy(np.argsort(ORDER))
            return replace(
                dataset,
                digest="0" * 64,
                class_names=tuple(map("x".__add__, names)) if renamed else names,
                **{k: replace(s, labels=labels[s.labels]) for k, s in dataset.splits().items()},
            )

        monkeypatch.setattr(workspace, "_loaded_dataset", load)

    return change


def test_a_former_runs_outputs_stand_for_the_classes_of_their_names(
    place: Any, spared: None, reordered: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("teacher", **DIGITS, **SURE) == 0
    (former,) = place.runs("teacher")
    reordered()
    taken = {"teacher__model": "mlp_small", "teacher__frozen": "true"}
    names = (former.info.run_id, f"runs:/{former.info.run_id}/weights.pt")
    for name in names:
        assert place.run("teacher", **DIGITS, **taken, teacher__weights=name) == 0
    said = capsys.readouterr().err
    assert said.count(f"{names[0]}: its classes stand in another order (0, 1, 2, ...)") == 1
    _, again = place.runs("teacher")  # one run by both names
    before, after = place.predictions(former), place.predictions(again)
    np.testing.assert_array_equal(ORDER[after["prediction"]], before["prediction"])
    # A file knows no names; what it predicts shows that they are others.
    path = place.artifact(former, "weights.pt")
    said = refusal(place, capsys, **taken, teacher__weights=path)
    assert "have the classes in another order: on validation" in said
    assert place.runs("teacher")[-1].info.status == "FAILED"
    reordered(renamed=True)
    said = refusal(place, capsys, **taken, teacher__weights=names[0])
    assert "are for the classes 0, 1, 2, ...; this dataset has " in said


@pytest.mark.parametrize("command", ["distill", "sweep"])
def test_weights_that_are_not_finite_are_refused_before_anything_is_trained(
    place: Any, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    state = build_model("mlp_small", image_facts(1, 8, 10)).state_dict()
    state["classifier.bias"][4] = float("nan")
    torch.save(state, place.folder / "nan.pt")
    student = {"student__model": "mlp_small", "student__weights": place.folder / "nan.pt"}
    assert place.run(command, **DIGITS, **student) == 2
    said = last_line(capsys)
    assert "nan.pt': 1 of the 10 numbers of classifier.bias are NaN or infinite" in said
    assert place.runs() == []


@pytest.mark.parametrize(("digest", "remarks"), [("", 0), ("same", 0), ("another", 1)])
def test_columns_of_another_table_are_said_to_be_matched_by_position(
    digest: str,
    remarks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = (f"{n % 7},{n % 5},{'xy'[n % 2]}" for n in range(60))
    (tmp_path / "one.csv").write_text("\n".join(["a,b,label", *rows]))
    given = {"file": str(tmp_path / "one.csv"), "name": "table"}
    overrides = {f"dataset.{name}": value for name, value in given.items()}
    overrides |= {"teacher.model": "mlp_small", "teacher.weights": str(tmp_path / "given.pt")}
    project = load_project("table", overrides)
    dataset = load_dataset(project.dataset, tmp_path)
    state = build_model("mlp_small", DataFacts((2,), ("x", "y"))).state_dict()
    torch.save(state, tmp_path / "given.pt")
    step = teacher_step(project, 0, dataset.digest)
    source = replace(
        weights.find_weights(str(tmp_path / "given.pt")),
        dataset=dataset.digest[:36] if digest == "same" else digest,
    )
    monkeypatch.setattr(starting, "find_weights", lambda name: source)
    capsys.readouterr()
    starting_model(step, dataset)
    said = capsys.readouterr().err
    assert said.count("matched by position, so its columns must be these") == remarks


def test_images_are_normalised_as_the_weights_that_are_given_were(tmp_path: Path) -> None:
    dataset = load_dataset(load_project("digits").dataset, tmp_path)

    def step(**fields: str) -> Step:
        own = {"model": "mlp_small", "frozen": "true", "weights": str(tmp_path / "given.pt")}
        overrides = {f"teacher.{name}": value for name, value in {**own, **fields}.items()}
        return teacher_step(load_project("digits", overrides), 0, dataset.digest)

    torch.save(build_model("mlp_small", image_facts(1, 8, 10)).state_dict(), tmp_path / "given.pt")
    plain, given = step(), step(mean="0.5", std="0.25")
    assert plain.key != given.key
    model = starting_model(given, dataset)
    assert (model.mean.tolist(), model.std.tolist()) == ([0.5], [0.25])
    torch.testing.assert_close(starting_model(plain, dataset).mean, dataset.channel_statistics[0])
    # Weights that hold constants of their own keep them.
    torch.save(model.state_dict(), tmp_path / "given.pt")
    assert starting_model(step(), dataset).mean.tolist() == [0.5]
    assert starting_model(step(mean="0.5", std="0.25"), dataset).std.tolist() == [0.25]
    assert "contain their own" in refusal_of(starting_model, step(mean="0.4", std="0.25"), dataset)


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
        ("0" * 32, "cannot be read from the tracking store"),
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
    assert said.endswith(
        f"teacher.weights={given!r} are those of model='lenet5', not of 'resnet20'; allowed: set "
        "teacher.model=lenet5"
    )


@pytest.mark.parametrize(
    ("command", "field"),
    [("teacher", "teacher"), ("student", "student"), ("sweep", "student")],
)
def test_a_file_that_is_not_there_is_named_by_its_field_before_the_data_are_read(
    place: Any, command: str, field: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(workspace, "_loaded_dataset", None)  # reading them would fail
    given = {f"{field}__weights": "weights.pt"}
    assert place.run(command, **DIGITS, **given) == 2
    assert f"{field}.weights='weights.pt' is no file; allowed: " in last_line(capsys)
    assert place.commands() == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"teacher__frozen": "true"}, "frozen=True is not allowed for fresh weights"),
        ({"teacher__pretrained": "true"}, "not allowed with model='lenet5'; allowed: with bert"),
        (
            {"teacher__model": "resnet50", "teacher__pretrained": "true", "teacher__weights": "a"},
            "pretrained and weights are given",
        ),
        (
            {"teacher__model": "own:model", "teacher__image_size": "9"},
            "image_size cannot be set with",
        ),
        (
            {"teacher__model": "own:model", "teacher__mean": "0.5", "teacher__std": "0.5"},
            "mean, std cannot be set with",
        ),
        ({"student__weights_entry": "ema"}, "weights_entry='ema' is not allowed without weights"),
        ({"student__mean": "0.5,0.5"}, "mean=(0.5, 0.5) and std=None do not fit together"),
        ({"student__mean": "0.5", "student__std": "0.5,0.2"}, "do not fit together"),
        ({"student__mean": "123.7", "student__std": "0.5"}, "mean='123.7' is not allowed; allowed"),
        ({"student__mean": "0.5", "student__std": "0"}, "std='0' is not allowed; allowed"),
        (
            {
                "teacher__model": "resnet18",
                "teacher__pretrained": "true",
                "teacher__mean": "0.5,0.5,0.5",
                "teacher__std": "0.5,0.5,0.5",
            },
            "published weights have their own",
        ),
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
