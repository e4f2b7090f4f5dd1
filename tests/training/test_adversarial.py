"""Training on attacked images: what the method is where the attack is nothing, and what it adds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fits import CPU, assert_equal_weights, numbers, train
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.kernels import kd_loss
from kdplatform.methods import Batch, Output, build_method, method_config_classes
from kdplatform.methods._attacks import pixels
from kdplatform.methods._weight_perturbation import asked_at, worst_changes
from kdplatform.methods.adversarial import Config, WithoutTeacher, divergence
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import FitResult, Teacher, TeacherTable, initialised_model, predict_logits

STRONG = {"eps": 0.3, "steps": 2, "step_size": 0.2}


@pytest.fixture(scope="module")
def short(config: TrainingConfig) -> TrainingConfig:
    return config.model_copy(update={"epochs": 2})


@pytest.fixture(scope="module")
def network(dataset: Dataset) -> nn.Module:
    return initialised_model("lenet5", dataset, seed=5, role=Role.TEACHER).eval()


@pytest.fixture
def teacher(dataset: Dataset, network: nn.Module) -> Teacher:
    table = TeacherTable(predict_logits(network, dataset.train.inputs, device=CPU))
    return Teacher(table, lambda: network)


def trained(
    dataset: Dataset, config: TrainingConfig, method: MethodConfig, teacher: Teacher, **named: Any
) -> tuple[nn.Module, FitResult]:
    return train(dataset, config, method=build_method(method), teacher=teacher, **named)


@pytest.mark.parametrize(("base", "form"), [("ttm", "at"), ("kd", "trades"), ("none", "at")])
def test_without_distance_it_is_the_unattacked_method_to_the_bit(
    base: str, form: Any, dataset: Dataset, short: TrainingConfig, teacher: Teacher
) -> None:
    if base == "none":
        own, plain = WithoutTeacher(eps=0, form=form), MethodConfig()
    else:
        own = Config(eps=0, form=form, base=base, temperature=3)
        plain = method_config_classes(base)[True].model_validate({"temperature": 3})
    model, result = trained(dataset, short, own, teacher)
    other, expected = trained(dataset, short, plain, teacher)
    assert_equal_weights(model, other)
    losses = [[record["train_loss"] for record in numbers(r.records)] for r in (result, expected)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "method",
    [
        WithoutTeacher(**STRONG),
        WithoutTeacher(form="trades", weight_perturbation=5e-3, **STRONG),
        Config(base="kd", clean_weight=0.2, norm="2", **STRONG),
        Config(teacher_inputs="attacked", weight_perturbation=5e-3, **STRONG),
    ],
    ids=["at", "trades awp", "mixed", "attacked teacher awp"],
)
def test_training_on_attacked_images_goes_on_bit_for_bit(
    method: Any, dataset: Dataset, short: TrainingConfig, teacher: Teacher, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        raise StopError

    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    whole, expected = trained(dataset, short, method, teacher)
    with pytest.raises(StopError):
        trained(dataset, short, method, teacher, on_epoch=stop, **saved)
    again, result = trained(dataset, short, method, teacher, **saved)
    assert result.restored_epochs == 1
    assert_equal_weights(whole, again)
    assert numbers(expected.records) == numbers(result.records)


# ---- one step


class StillRun:
    """A run of a model that stays as it is, with a teacher that knows what it was asked."""

    def __init__(self, dataset: Dataset, network: nn.Module, config: TrainingConfig) -> None:
        self.model = initialised_model("lenet5", dataset, seed=1, role=Role.STUDENT)
        self.config, self.split, self.device = config, dataset.train, CPU
        self.generator = torch.Generator().manual_seed(0)
        self.epoch, self.step, self.steps_per_epoch = 0, 0, 1
        self.asked: list[Tensor] = []
        self._network = network

    def student(self, inputs: Tensor, *, features: bool = False) -> Output:
        return self.ask(self.model, inputs)

    def ask(self, network: Any, inputs: Tensor, *, features: bool = False) -> Output:
        return Output(network(inputs))

    @torch.no_grad()
    def teacher(self, batch: Batch, *, features: bool = False) -> Output:
        self.asked.append(batch.inputs)
        return Output(self._network(batch.inputs))


@pytest.fixture
def run(dataset: Dataset, network: nn.Module, config: TrainingConfig) -> Any:
    return StillRun(dataset, network, config)


@pytest.fixture
def batch(dataset: Dataset) -> Batch:
    rows = torch.arange(8)
    return Batch(dataset.train.inputs[:8], dataset.train.labels[:8], rows, rows)


def begun(config: MethodConfig, run: Any) -> Any:
    method = build_method(config)
    method.begin(run)
    run.generator.manual_seed(0)
    return method


def attacked_images(config: WithoutTeacher, run: Any, batch: Batch) -> Tensor:
    """Returns the images that the method trains on, of the same random start."""
    seen: list[Tensor] = []
    run.generator.manual_seed(0)
    student = run.student

    def spy(inputs: Tensor, *, features: bool = False) -> Output:
        seen.append(inputs)
        return student(inputs)  # type: ignore[no-any-return]

    run.student = spy
    build_method(config).loss(batch, run)
    run.student = student
    run.generator.manual_seed(0)
    return seen[-1]


def test_attacked_images_raise_the_students_loss(run: Any, batch: Batch) -> None:
    config = WithoutTeacher(**STRONG)
    moved = attacked_images(config, run, batch)
    assert (moved - pixels(batch.inputs)).abs().max() <= 0.3 + 1e-6
    rows = begun(config, run).loss(batch, run).rows
    torch.testing.assert_close(
        rows, nn.functional.cross_entropy(run.model(moved), batch.labels, reduction="none")
    )
    clean = nn.functional.cross_entropy(run.model(batch.inputs), batch.labels, reduction="none")
    assert (rows > clean).all()


def test_a_low_temperature_gives_the_clean_images_soft_labels(
    run: Any, batch: Batch, network: nn.Module
) -> None:
    config = Config(temperature=2, **STRONG)
    moved = attacked_images(config, run, batch)
    run.asked.clear()
    rows = begun(config, run).loss(batch, run).rows
    told = kd_loss(
        run.model(moved),
        network(batch.inputs),
        student_temperature=1,
        teacher_temperature=2,
        kl_weight=1.0,
        scale_by_t2=False,
        reduction="none",
    )
    torch.testing.assert_close(rows, told.loss)
    assert [each is batch.inputs for each in run.asked] == [True]


def test_a_teacher_may_be_asked_about_attacked_images(
    run: Any, batch: Batch, network: nn.Module
) -> None:
    config = Config(base="divergence", base_fields=("alpha=1", "kind=forward"), temperature=1,
                    teacher_inputs="attacked", **STRONG)  # fmt: skip
    moved = attacked_images(config, run, batch)
    rows = begun(config, run).loss(batch, run).rows
    torch.testing.assert_close(run.asked[-1], moved)
    torch.testing.assert_close(rows, divergence(network(moved), run.model(moved)))


def test_a_sure_teacher_is_a_hard_label(run: Any, batch: Batch) -> None:
    labels = nn.functional.one_hot(batch.labels, 4).float()
    run.teacher = lambda asked, features=False: Output(labels)
    hard = begun(WithoutTeacher(**STRONG), run).loss(batch, run).rows
    soft = begun(Config(temperature=1e-3, **STRONG), run).loss(batch, run).rows
    torch.testing.assert_close(hard, soft)
    flat = begun(Config(temperature=1e6, **STRONG), run)
    student = run.model(attacked_images(flat.config, run, batch))
    uniform = divergence(torch.zeros_like(student), student)
    run.generator.manual_seed(0)
    torch.testing.assert_close(flat.loss(batch, run).rows, uniform, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_low_temperature_is_the_difference_of_probabilities(
    run: Any, batch: Batch, network: nn.Module
) -> None:
    loss = begun(Config(temperature=3, **STRONG), run).loss(batch, run)
    [found] = torch.autograd.grad(loss.rows.sum(), loss.student.logits)
    expected = loss.student.logits.softmax(1) - (network(batch.inputs) / 3).softmax(1)
    torch.testing.assert_close(found, expected)


def test_rslad_mixes_attacked_and_clean_images(run: Any, batch: Batch, network: nn.Module) -> None:
    config = Config(base="divergence", base_fields=("alpha=1", "kind=forward"), temperature=1,
                    clean_weight=1 / 6, **STRONG)  # fmt: skip
    rows = begun(config, run).loss(batch, run).rows
    plain = config.model_copy(update={"clean_weight": 0.0})
    moved = attacked_images(plain, run, batch)
    told = network(batch.inputs)
    terms = [divergence(told, run.model(x)) for x in (moved, batch.inputs)]
    torch.testing.assert_close(rows, 5 / 6 * terms[0] + 1 / 6 * terms[1])


def test_trades_adds_the_divergence_that_it_attacks(run: Any, batch: Batch) -> None:
    config = WithoutTeacher(form="trades", beta=3, **STRONG)
    moved = attacked_images(config, run, batch)
    loss = begun(config, run).loss(batch, run)
    clean, other = run.model(batch.inputs), run.model(moved)
    ce = nn.functional.cross_entropy(clean, batch.labels, reduction="none")
    robust = divergence(clean, other)
    torch.testing.assert_close(loss.rows, ce + 3 * robust)
    torch.testing.assert_close(loss.parts["robust"], robust)
    # Both models of the divergence learn.
    [found] = torch.autograd.grad(divergence(clean, other.detach()).sum(), clean)
    assert found.abs().max() > 0


def test_no_attack_leaves_a_trace_in_the_model(run: Any, batch: Batch) -> None:
    run.model = nn.Sequential(nn.Flatten(), _Floats(), nn.BatchNorm1d(192), nn.Linear(192, 4))
    begun(Config(**STRONG), run).loss(batch, run)
    assert int(run.model[2].num_batches_tracked) == 1
    assert run.model.training
    assert all(parameter.grad is None for parameter in run.model.parameters())


class _Floats(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs / 255 if inputs.dtype == torch.uint8 else inputs


# ---- changed weights


def test_weights_change_by_their_share_and_towards_a_higher_loss(run: Any, batch: Batch) -> None:
    def rows(ask: Any) -> Tensor:
        logits = ask(batch.inputs).logits
        return nn.functional.cross_entropy(logits, batch.labels, reduction="none")

    changes = worst_changes(run, rows, 0.05)
    own = dict(run.model.named_parameters())
    assert set(changes) == {name for name, weight in own.items() if weight.ndim > 1}
    for name, change in changes.items():
        assert change.norm() == pytest.approx(0.05 * own[name].norm().item(), rel=1e-4)
    before, after = rows(run.student).mean(), rows(asked_at(run, changes)).mean()
    assert after > before + 0.01
    [slope] = torch.autograd.grad(after, own["model.hidden1.weight"])
    assert slope.abs().max() > 0


def test_the_search_for_changes_teaches_batch_normalisation_nothing(run: Any, batch: Batch) -> None:
    run.model = nn.Sequential(nn.Flatten(), _Floats(), nn.BatchNorm1d(192), nn.Linear(192, 4))
    config = WithoutTeacher(weight_perturbation=0.05, **STRONG)
    plain = begun(WithoutTeacher(**STRONG), run).loss(batch, run).rows
    assert int(run.model[2].num_batches_tracked) == 1
    harder = begun(config, run).loss(batch, run).rows
    assert int(run.model[2].num_batches_tracked) == 2
    assert harder.mean() > plain.mean()


def test_no_change_is_the_student_itself(run: Any, batch: Batch) -> None:
    assert torch.equal(asked_at(run, {})(batch.inputs).logits, run.student(batch.inputs).logits)
