"""Models handed on: gated, registered with their card, exported to ONNX."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.place import Finished, copied
from helpers.refusals import last_line, refusal_of
from torch import nn

from kdplatform.errors import MachineError
from kdplatform.experiments import onnx_export
from kdplatform.experiments.artifacts import log_artifacts_of
from kdplatform.experiments.onnx_export import export_onnx, onnx_logits, require_onnx
from kdplatform.experiments.records import extend_table


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text("rules: {accuracy: {min: 0.0}, n_sc: {max: 3}, ece: {max: 1}}\n")
    return path


def test_a_reused_student_is_gated_and_registered_with_its_card(
    trained_place: Any,
    gates: Path,
    as_before: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {**as_before, "gate": gates, "gate_out": tmp_path / "gate", "register": "small-ds"}
    assert trained_place.run("distill", **words) == 0
    captured = capsys.readouterr()
    assert "models:/small-ds/1" in captured.out
    assert "gate passed: 0 of 3 rules broken" in captured.err
    [student] = trained_place.runs("distilled")
    assert student.data.tags["kd.gate"] == "passed"
    command = trained_place.commands()[-1]
    assert command.data.tags["kd.gate"] == "passed"
    assert json.loads((tmp_path / "gate" / "gate.json").read_text())["outcome"] == "passed"
    version = trained_place.client.get_model_version("small-ds", "1")
    assert version.run_id == student.info.run_id
    assert version.description.startswith("# small DS kd T=10")
    assert "## Groups" in version.description
    assert version.tags["kd.gate"] == "passed"
    assert float(version.tags["test/accuracy"]) == pytest.approx(
        student.data.metrics["test/accuracy"], rel=1e-5
    )
    assert "fairness/color/eod" in version.tags
    card = trained_place.artifact(student, "card")
    assert {path.name for path in card.iterdir()} >= {"README.md", "annex_iv.md"}
    # A second time it is the same version.
    assert trained_place.run("distill", **as_before, register="small-ds") == 0
    assert "models:/small-ds/1 (registered before)" in capsys.readouterr().out
    table = trained_place.predictions(student)
    images = np.load(next(trained_place.home.rglob("images.npz")))["test"]
    model = mlflow.pyfunc.load_model("models:/small-ds/1")
    logits = np.stack(table["logits"].to_list())
    assert model.predict(images) == pytest.approx(logits, abs=0.05)


def test_a_gate_that_fails_keeps_what_was_trained_and_ends_with_3(
    trained_place: Any,
    gates: Path,
    as_before: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gates.write_text("rules: {accuracy: {min: 0.999}}\n")
    assert trained_place.run("distill", **as_before, gate=gates) == 3
    broken, last = capsys.readouterr().err.splitlines()[-2:]
    assert broken.startswith("failed: DS T=10: test/accuracy min 0.999: it is 0.")
    assert last.startswith("kdplatform: gate failed: 1 of 1 rules broken")
    command = trained_place.commands()[-1]
    assert (command.info.status, command.data.tags["kd.gate"]) == ("FINISHED", "failed")


def test_rules_are_refused_before_anything_is_trained(
    new_place: Any, gates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates.write_text("rules: {fairness/colour/eod: {max: 0.1}}\n")
    assert new_place.run("distill", gate=gates) == 2
    assert "did you mean 'fairness/color/eod'" in last_line(capsys)
    assert new_place.commands() == []


@pytest.mark.parametrize(
    ("parameter", "value"), [("register", "a/b"), ("register", "a:1"), ("export", "tflite")]
)
def test_what_cannot_be_delivered_is_refused_first(
    parameter: str, value: str, new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_place.run("distill", **{parameter: value}) == 2
    assert last_line(capsys).startswith(f"{parameter}={value!r}")
    assert new_place.commands() == []


def test_a_missing_package_of_the_export_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    line = refusal_of(require_onnx)
    assert "needs onnx, onnxscript, onnxruntime" in line
    assert 'pip install "kdplatform[onnx]"' in line


class Small(nn.Module):
    """A model of raw bytes, as those of the platform are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs.float().flatten(1) / 255)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    inputs = torch.randint(0, 256, (20, 3, 2, 2), dtype=torch.uint8)
    check = export_onnx(Small().eval(), inputs, path)
    assert check.rows == 20
    assert check.largest < 1e-5
    return path, inputs


def test_an_onnx_file_has_torchs_logits_for_any_number_of_examples(
    exported: tuple[Path, torch.Tensor],
) -> None:
    path, inputs = exported
    expected = Small()(inputs).detach().numpy()
    for rows in (1, 7, 20):
        assert onnx_logits(path, inputs[:rows]) == pytest.approx(expected[:rows], abs=1e-5)


def test_an_onnx_file_with_other_logits_is_refused(exported: tuple[Path, torch.Tensor]) -> None:
    path, inputs = exported
    other = Small()
    nn.init.zeros_(other.layer.weight)
    with pytest.raises(MachineError, match="differ from torch's by up to"):
        onnx_export._checked(other, inputs, path)


def test_two_copies_of_a_store_in_one_process_get_what_is_theirs(
    first_command: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [copied(first_command.place, tmp_path / name) for name in ("a", "b")]
    own = tmp_path / "own"
    own.mkdir()
    for place in places:
        place.enter(monkeypatch)
        [run] = place.runs("distilled")
        (own / "name.txt").write_text(place.folder.name)
        log_artifacts_of(run.info.run_id, own, "card")
        extend_table(run, "groups", pd.DataFrame({"attribute": ["copy"], "group": ["1"]}))
    for place in places:
        [run] = place.runs("distilled")
        assert place.artifact(run, "card/name.txt").read_text() == place.folder.name
        groups = json.loads(place.artifact(run, "groups.json").read_text())
        column = groups["columns"].index("attribute")
        assert [row[column] for row in groups["data"]] == ["color"] * 3 + ["copy"]
