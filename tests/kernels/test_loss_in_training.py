"""The loss where training puts it: loss scales, several processes, several threads, compiled."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")


def batch(rows: int = 16, classes: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randn(rows, 8, generator=generator)
    teacher = 3 * torch.randn(rows, classes, generator=generator)
    return inputs, teacher, torch.randint(classes, (rows,), generator=generator)


def student(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(8, classes)


def loss_of(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return kd_loss(logits, teacher, labels, temperature=4.0, alpha=0.5).loss


class TestGradScaler:
    def step(self, inputs: Tensor, scaled: bool) -> tuple[nn.Module, torch.amp.GradScaler]:
        """One step in float16, or without a scaler in float32."""
        _, teacher, labels = batch()
        model = student()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
        with torch.autocast("cpu", dtype=torch.float16, enabled=scaled):
            logits = model(inputs)
            assert logits.dtype is (torch.float16 if scaled else torch.float32)
            loss = loss_of(logits, teacher, labels)
        assert loss.dtype is torch.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return model, scaler

    def test_a_scaled_step_is_the_step_of_float32(self):
        inputs = batch()[0]
        (scaled, _), (plain, _) = self.step(inputs, True), self.step(inputs, False)
        assert not torch.equal(plain.weight, student().weight)
        torch.testing.assert_close(scaled.weight, plain.weight, rtol=0, atol=2e-3)
        assert (scaled.weight - plain.weight).abs().max() < 0.01 * (
            (plain.weight - student().weight).abs().max()
        )

    def test_logits_that_overflow_are_seen_and_the_step_is_left_out(self):
        model, scaler = self.step(1e6 * batch()[0], True)
        assert torch.equal(model.weight, student().weight)
        assert scaler.get_scale() == 2.0**11


def test_threads_that_call_at_once_do_not_disturb_each_other():
    # 500 classes: rows in passes, with scratch memory that belongs to the thread. Logits without a
    # model: torch splits a model's product by the threads it has at hand, which changes its bits.
    problems = [batch(rows, 500)[1:] for rows in range(3, 11)]
    students = [teacher.flip(0).requires_grad_() for teacher, _ in problems]

    def gradient(index: int) -> Tensor:
        loss = loss_of(students[index], *problems[index])
        return torch.autograd.grad(loss, students[index])[0]

    expected = [gradient(index) for index in range(len(problems))]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            together = list(pool.map(gradient, range(len(problems))))
            torch.testing.assert_close(together, expected, rtol=0, atol=0)


def test_a_reentrant_checkpoint_gives_the_same_gradient():
    inputs, teacher, labels = batch()
    model = student()

    def loss(inputs: Tensor) -> Tensor:
        return loss_of(model(inputs), teacher, labels)

    (expected,) = torch.autograd.grad(loss(inputs), model.weight)
    again = torch.utils.checkpoint.checkpoint(
        loss, inputs.clone().requires_grad_(), use_reentrant=True
    )
    again.backward()
    torch.testing.assert_close(model.weight.grad, expected)


@pytest.mark.parametrize("call", [torch.no_grad, torch.inference_mode])
def test_values_without_a_gradient_are_those_with_one(call):
    inputs, teacher, labels = batch()
    logits = student()(inputs)
    expected = kd_loss(logits, teacher, labels, temperature=4.0, alpha=0.5)
    with call():
        output = kd_loss(logits, teacher, labels, temperature=4.0, alpha=0.5)
    assert not output.loss.requires_grad
    torch.testing.assert_close(output.loss, expected.loss.detach(), rtol=0, atol=0)


def test_equal_calls_give_equal_bits():
    inputs, teacher, labels = batch(64, 130)
    results = []
    for _ in range(3):
        model = student(130)
        loss = loss_of(model(inputs), teacher, labels)
        loss.backward()
        results.append((loss.detach(), model.weight.grad))
    torch.testing.assert_close(results[1:], results[:1] * 2, rtol=0, atol=0)


DISTRIBUTED = """
import sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from kdplatform import kd_loss
from kdplatform.kernels.backend import loaded
torch.set_num_threads(1)
rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
torch.manual_seed(0)
inputs, teacher, labels = torch.randn(8, 5), torch.randn(8, 10), torch.randint(10, (8,))
model = torch.nn.Linear(5, 10)
def step(model, rows):
    model.zero_grad()
    loss = kd_loss(model(inputs[rows]), teacher[rows], labels[rows], temperature=4, alpha=0.5)
    loss.loss.backward()
    return loss.backend
loaded.settled = True
step(model, slice(0, 8))
expected = model.weight.grad.clone()
parallel = DistributedDataParallel(model)
for loaded.settled in (True, False):  # as if there were no library, then as it is
    backend = step(parallel, slice(4 * rank, 4 * rank + 4))
    torch.testing.assert_close(model.weight.grad, expected)
    print("equal by", backend)
dist.destroy_process_group()
"""


def test_two_processes_with_half_a_batch_each_have_the_gradient_of_the_whole(
    each_backend, tmp_path
):
    if each_backend == "reference":
        pytest.skip("the processes of the other case try the reference first")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=90)[0] for process in processes]
    for output in outputs:
        assert "equal by reference" in output
        assert "equal by fused" in output


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_compiled_call_with_one_temperature_per_row_serves_any_batch(reduction):
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def step(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor) -> Tensor:
        return kd_loss(
            logits, teacher, labels, temperature=temperature, alpha=0.5, reduction=reduction
        ).loss.sum()

    for rows in (5, 9):
        inputs, teacher, labels = batch(rows)
        logits = student()(inputs).detach().requires_grad_()
        temperature = torch.linspace(1, 4, rows)
        (gradient,) = torch.autograd.grad(step(logits, teacher, labels, temperature), logits)
        expected = kd_loss(
            logits, teacher, labels, temperature=temperature, alpha=0.5, reduction=reduction
        ).loss.sum()
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
