"""A method is one file: its fields, its modules and its loss; nothing else is told of it."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.known_keys import KNOWN_KEYS, digits_keys
from helpers.method_folder import method_folder
from helpers.place import copied
from helpers.refusals import failure

from kdplatform import cli, methods
from kdplatform.experiments import logged_models, records
from kdplatform.settings.schema import DistillationConfig

TOY = '''
"""The student's features, projected, near the teacher's."""

from typing import Literal

from pydantic import Field

from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.settings.schema import DistillationConfig


class Config(DistillationConfig):
    method: Literal["toy"] = Field("toy", description="method")
    sharpness: float = Field(2.0, ge=0, description="weight of the distance of features")


class Toy(Method[Config]):
    needs = Needs(teacher="live")

    def begin(self, run: Run) -> None:
        inputs = run.split.inputs[:2].to(run.device)
        rows = torch.arange(2, device=run.device)
        own = run.student(inputs, features=True)
        its = run.teacher(Batch(inputs, rows, rows, rows), features=True)
        self.projector = torch.nn.Linear(own.features.shape[1], its.features.shape[1])

    def loss(self, batch: Batch, run: Run) -> Loss:
        student = run.student(batch.inputs, features=True)
        teacher = run.teacher(batch, features=True)
        distance = (self.projector(student.features) - teacher.features).square().mean(dim=1)
        ce = functional.cross_entropy(student.logits, batch.labels, reduction="none")
        parts = {"ce": ce.detach(), "distance": distance.detach()}
        return Loss(ce + self.config.sharpness * distance, student, parts)
'''
DISTILL = ["distill", "--project", "digits", "--method", "toy"]
WITHOUT_TEACHER = [n for n in methods.method_names() if False in methods.method_config_classes(n)]
QUICK = ["--teacher.epochs", "1", "--student.epochs", "2"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with method_folder(tmp_path_factory.mktemp("methods"), toy=TOY):
        yield


@dataclass(frozen=True)
class Distilled:
    """A study by the method, ended."""

    place: Any
    code: int
    out: str
    err: str

    @property
    def run(self) -> Any:
        [run] = self.place.runs("distilled")
        return run


@pytest.fixture(scope="module")
def distilled(
    toy: None, empty_place: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Distilled]:
    place = copied(empty_place, tmp_path_factory.mktemp("toy"))
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        patch.setattr(logged_models, "log_model", lambda *arguments: None)
        patch.setattr(records, "log_figures", lambda *arguments: None)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([*DISTILL, "--distillation.sharpness", "3", *QUICK])
        yield Distilled(place, code, out.getvalue(), err.getvalue())


def test_a_student_is_distilled_by_it(distilled: Distilled) -> None:
    assert distilled.code == 0, distilled.err
    assert distilled.run.info.status == "FINISHED"
    assert distilled.run.info.run_name == "DS lenet5 toy seed 0"
    assert distilled.place.commands()[0].info.run_name == "distill digits toy seed 0"


def test_its_run_has_its_own_fields_and_no_others(distilled: Distilled) -> None:
    fields = {k: v for k, v in distilled.run.data.params.items() if k.startswith("distillation.")}
    for shared in DistillationConfig.model_fields.keys() - {"method"}:
        fields.pop(f"distillation.{shared}", None)
    assert fields == {"distillation.method": "toy", "distillation.sharpness": "3.0"}
    tags = distilled.run.data.tags
    assert tags["kd.method"] == "toy"
    assert not {"kd.temperature", "kd.alpha"} & tags.keys()


def test_its_parts_are_curves(distilled: Distilled) -> None:
    curves = {name for name in distilled.run.data.metrics if name.startswith("epoch/train_")}
    assert {"epoch/train_ce", "epoch/train_distance"} <= curves
    assert "epoch/train_kl" not in curves


def test_the_help_shows_its_field_with_range_and_description(
    toy: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*DISTILL, "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "--distillation.sharpness 2 weight of the distance of features [number >= 0]" in page
    assert "--distillation.temperature" not in page
    assert f"methods {', '.join(methods.method_names())}" in page
    assert "toy" in methods.method_names()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--method", "toy", "--distillation.robustness", "1"],
            "distillation.robustness is no field of method='toy'; methods that have it: "
            "worst_class",
        ),
        (
            ["--distillation.sharpness", "3"],
            "distillation.sharpness is no field of method='kd'; methods that have it: toy",
        ),
        (
            ["--method", "toy", "--distillation.sharpness", "-1"],
            "distillation.sharpness='-1' is not allowed; allowed: number >= 0",
        ),
        (
            ["--teacher.method", "toy"],
            f"teacher.method='toy' learns from a teacher; allowed: {', '.join(WITHOUT_TEACHER)}",
        ),
    ],
)
def test_a_field_or_method_in_the_wrong_place_is_refused(
    toy: None, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert failure(["distill", "--project", "digits", *words], capsys) == (2, line)


def test_keys_of_other_methods_stay_as_they_are(toy: None) -> None:
    assert "toy" in methods.method_names()
    assert digits_keys() == KNOWN_KEYS


def test_a_file_without_fields_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with method_folder(tmp_path, bare="LOSS = 1"):
        code, line = failure(["distill", "--project", "digits", "--method", "bare"], capsys)
    assert code == 1
    assert line == f"{tmp_path}/bare.py has no class Config; allowed: one of MethodConfig"


def test_fields_of_another_name_than_the_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with method_folder(tmp_path, toys=TOY):
        code, line = failure(["distill", "--project", "digits", "--method", "toys"], capsys)
    assert code == 1
    assert line == (
        f"{tmp_path}/toys.py: the field method of Config is 'toy'; allowed: 'toys', as the file "
        "is named"
    )


def test_a_name_in_two_folders_is_named_with_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(methods.__path__[0])
    (tmp_path / "kd.py").write_text(TOY)
    with method_folder(tmp_path):
        code, line = failure(["distill", "--project", "digits"], capsys)
    assert code == 1
    assert line == (
        f"method 'kd' exists twice: in {own} and {tmp_path}; allowed: one file per name"
    )
