"""Logged models give the logits of the model they were logged from, whatever was logged before."""

from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from kdplatform.data import Dataset, load_dataset
from kdplatform.experiments import logged_models
from kdplatform.experiments.graph import Step, student_step
from kdplatform.settings.project import load_project
from kdplatform.training import initialised_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(load_project("digits").dataset, tmp_path_factory.mktemp("datasets"))


@pytest.fixture(autouse=True)
def nothing_exported_yet() -> Iterator[None]:
    logged_models._exports.clear()
    yield
    logged_models._exports.clear()


def step_of(model: str, dataset: Dataset, seed: int) -> Step:
    return student_step(load_project("digits", {"student.model": model}), seed, dataset.digest)


def model_of(step: Step, dataset: Dataset) -> nn.Module:
    """Returns a network of random weights, whose batch normalisation has seen something."""
    model = initialised_model(step.training.model, dataset, seed=step.seed, role="student")
    model.train()
    with torch.no_grad():
        model(dataset.train.inputs[: 64 * (step.seed + 1)])
    return model.eval()


def logged(step: Step, model: nn.Module, dataset: Dataset) -> Any:
    with mlflow.start_run():
        model_id = logged_models.log_model(step, model, dataset, {"seed": str(step.seed)})
    return mlflow.MlflowClient().get_logged_model(str(model_id))


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_models_of_one_architecture_are_exported_once_and_keep_their_weights(
    name: str, digits: Dataset, new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = []
    export = torch.export.export
    monkeypatch.setattr(
        torch.export, "export", lambda *args, **named: exports.append(1) or export(*args, **named)
    )
    steps = [step_of(name, digits, seed) for seed in range(3)]
    models = [model_of(step, digits) for step in steps]
    described = [logged(*pair, digits) for pair in zip(steps, models, strict=True)]
    assert len(exports) == 1
    inputs = digits.test.inputs[:50]
    for model, description in zip(models, described, strict=True):
        loaded = mlflow.pyfunc.load_model(description.artifact_location)
        with torch.no_grad():
            expected = model(inputs)
        np.testing.assert_allclose(loaded.predict(inputs.numpy()), expected, rtol=1e-5, atol=1e-5)


def test_what_is_logged_names_its_run_and_parameters(digits: Dataset, new_place: Any) -> None:
    steps = [step_of("lenet5", digits, seed) for seed in range(2)]
    for step in steps:
        model = logged(step, model_of(step, digits), digits)
        assert model.status == "READY"
        assert model.params == {"seed": str(step.seed)}
        description = mlflow.models.Model.load(model.artifact_location)
        assert description.model_id == model.model_id
        assert description.run_id == model.source_run_id
        assert {"pytorch", "python_function"} <= description.flavors.keys()
        assert description.load_input_example(model.artifact_location).shape[1:] == (1, 8, 8)


def test_an_archive_of_another_layout_is_made_for_each_model(
    digits: Dataset, new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged_models, "_content", lambda tensor: b"in another order")
    step = step_of("lenet5", digits, 0)
    logged(step, model_of(step, digits), digits)
    assert not logged_models._exports
