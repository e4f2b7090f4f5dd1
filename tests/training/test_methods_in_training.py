"""What a method may do around the steps, and that what it keeps is trained, saved and restored."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import CPU, augmented, train
from torch import Tensor, nn

from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.models.normalization import InputNormalization
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import Teacher, TeacherTable, initialised_model, predict_logits
from kdplatform.training.features import logits_and_features


class Keeping(Method[MethodConfig]):
    """Uses every hook: keeps a projector, a scale, a count, a frozen copy and random numbers."""

    in_eval = frozenset({"copy"})
    rebuilt = frozenset({"copy"})

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.calls: list[str] = []
        self.modes: set[tuple[bool, bool]] = set()

    def begin(self, run: Run) -> None:
        self.calls.append(f"begin {run.steps_per_epoch}")
        self.projector = nn.Sequential(nn.Linear(84, 4), nn.Dropout(0.1))
        self.copy = nn.BatchNorm1d(84).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))
        self.steps = torch.zeros((), dtype=torch.int64)

    def loss(self, batch: Batch, run: Run) -> Loss:
        self.calls.append(f"loss {run.step}")
        self.modes.add((self.projector.training, self.copy.training))
        student = run.student(batch.inputs, features=True)
        assert student.features is not None
        noise = torch.rand(4, generator=run.generator)
        logits = self.scale * student.logits + self.projector(student.features) + 0.01 * noise
        rows = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        return Loss(rows, student, {})

    def after_step(self, run: Run) -> None:
        self.calls.append(f"step {run.step}")
        self.steps = self.steps + 1


def test_hooks_are_called_in_order(dataset: Dataset, config: TrainingConfig) -> None:
    method = Keeping()
    train(dataset, config.model_copy(update={"epochs": 1}), method=method)
    expected = [call for i in range(4) for call in (f"loss {i}", f"step {i + 1}")]
    assert method.calls == ["begin 4", *expected]
    assert method.modes == {(True, False)}


def test_what_a_method_keeps_is_trained(dataset: Dataset, config: TrainingConfig) -> None:
    method = Keeping()
    train(dataset, config, method=method)
    assert method.scale.item() != 1.0
    assert method.projector[0].bias.grad is not None
    assert torch.equal(method.copy.weight, torch.ones(84))


def test_modules_of_a_method_are_drawn_from_the_runs_seed(
    dataset: Dataset, config: TrainingConfig
) -> None:
    weights = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed)
        method = Keeping()
        train(dataset, config.model_copy(update={"epochs": 1}), seed=seed, method=method)
        weights.append(method.projector[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_interrupted_method_goes_on_bit_for_bit(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}

    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        if record.epoch == 2:
            raise StopError

    whole, cut, resumed = Keeping(), Keeping(), Keeping()
    model, _ = train(dataset, config, method=whole)
    with pytest.raises(StopError):
        train(dataset, config, method=cut, on_epoch=stop, **saved)
    again, result = train(dataset, config, method=resumed, **saved)
    assert result.restored_epochs == 2
    assert int(resumed.steps) == 12
    assert torch.equal(resumed.scale, whole.scale)
    for name, value in whole.projector.state_dict().items():
        assert torch.equal(resumed.projector.state_dict()[name], value)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    content = torch.load(io.BytesIO((tmp_path / "checkpoint").read_bytes()[32:]), weights_only=True)
    assert set(content["content"]["method"]) == {"projector", "scale", "steps"}


# ---- teachers


class Asking(Method[MethodConfig]):
    """Asks the teacher about the batch as `changed` makes it, and keeps what it says."""

    needs = Needs(teacher="logits")

    def __init__(self, changed: str = "", features: bool = False) -> None:
        super().__init__(MethodConfig())
        self.changed, self.features = changed, features
        self.said: list[Tensor] = []
        self.width = 0

    def loss(self, batch: Batch, run: Run) -> Loss:
        if self.changed == "replaced":
            batch = dataclasses.replace(batch, inputs=255 - batch.inputs)
        if self.changed == "in place":
            batch.inputs.copy_(255 - batch.inputs)
        teacher = run.teacher(batch, features=self.features)
        self.said.append(teacher.logits)
        self.width = 0 if teacher.features is None else teacher.features.shape[1]
        student = run.student(batch.inputs)
        return Loss(student.logits.square().mean(dim=1), student, {})


@pytest.fixture
def network(dataset: Dataset) -> InputNormalization:
    return initialised_model("lenet5", dataset, seed=0, role=Role.TEACHER)


@pytest.mark.parametrize(
    ("changed", "features", "asked"),
    [("", False, False), ("replaced", False, True), ("in place", False, True), ("", True, True)],
)
def test_a_table_answers_for_the_loops_own_inputs_alone(
    changed: str,
    features: bool,
    asked: bool,
    dataset: Dataset,
    config: TrainingConfig,
    network: InputNormalization,
) -> None:
    table = torch.full((50, 4), 7.0)
    method = Asking(changed, features)
    teacher = Teacher(TeacherTable(table), lambda: network)
    train(dataset, config.model_copy(update={"epochs": 1}), method=method, teacher=teacher)
    said = torch.cat(method.said)
    assert torch.equal(said, torch.full((50, 4), 7.0)) is not asked
    assert method.width == (84 if features else 0)
    # The inputs were those of the split: what the loop keeps was not written to.
    assert dataset.train.inputs.float().mean() < 100


def test_a_table_without_a_network_refuses_other_inputs(
    dataset: Dataset, config: TrainingConfig
) -> None:
    teacher = Teacher(TeacherTable(torch.zeros(50, 4)), None)
    with pytest.raises(UserError, match="a table of logits and cannot serve other inputs"):
        train(dataset, config, method=Asking("replaced"), teacher=teacher)


def test_a_method_may_ask_for_the_teachers_logits_of_a_split(
    dataset: Dataset, config: TrainingConfig, network: InputNormalization
) -> None:
    class Statistics(Asking):
        def begin(self, run: Run) -> None:
            self.margins = run.teacher_logits("val")

    method = Statistics()
    train(dataset, config, method=method, teacher=Teacher(None, lambda: network))
    expected = predict_logits(network, dataset.val.inputs, device=CPU)
    assert torch.equal(method.margins, expected)


# ---- features


def test_features_are_the_input_of_the_last_linear_layer(
    dataset: Dataset, network: InputNormalization
) -> None:
    inputs = dataset.test.inputs
    logits, features = logits_and_features(network.eval(), inputs)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(last(features), logits)
    torch.testing.assert_close(network(inputs), logits)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_model_without_a_linear_layer_has_no_features() -> None:
    with pytest.raises(UserError, match="Flatten has no linear layer"):
        logits_and_features(nn.Flatten(), torch.zeros(2, 3))


# ---- examples without labels


class SemiSupervised(Method[MethodConfig]):
    """Learns from the labels it has and keeps what it sees of the examples without one."""

    needs = Needs(unlabeled=True)

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.seen: list[list[int]] = []

    def loss(self, batch: Batch, run: Run) -> Loss:
        assert batch.unlabeled is not None
        self.seen.append(batch.unlabeled.ids.tolist())
        assert (batch.unlabeled.labels == -1).all()
        assert not batch.unlabeled.labelled
        student = run.student(batch.inputs)
        rows = nn.functional.cross_entropy(student.logits, batch.labels, reduction="none")
        return Loss(rows, student, {})


def without_labels(split: Split, first_id: int) -> Split:
    return Split(
        split.inputs, torch.full_like(split.labels, -1), split.ids + first_id, split.columns
    )


def test_unlabeled_batches_come_beside_the_labelled_ones(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    unlabeled = without_labels(dataset.val, 5000)
    method = SemiSupervised()
    train(dataset, augmented(config, {"crop_padding": 1}), method=method, unlabeled=unlabeled)
    assert len(method.seen) == 12
    # 20 examples in two steps: each epoch of four steps sees all of them twice.
    for epoch in range(3):
        ids = [i for step in method.seen[4 * epoch : 4 * epoch + 4] for i in step]
        assert sorted(ids) == sorted([*unlabeled.ids.tolist()] * 2)
    assert method.seen[0] != method.seen[4]


def test_a_method_that_needs_unlabeled_examples_says_so(
    dataset: Dataset, config: TrainingConfig
) -> None:
    with pytest.raises(UserError, match=r"dataset\.unlabeled_fraction=0 leaves none"):
        train(dataset, config, method=SemiSupervised())
