"""The fused loss on a CUDA device, against float64 on the CPU; skipped where there is no device."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform.kernels import kd_loss, status

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("fused"),
]
DEVICE = "cuda"
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Classes by regime: tiles, lanes, blocks, clusters (or split rows), split rows; aligned and not.
CLASSES = [2, 3, 7, 10, 31, 32, 33, 100, 1000, 1001, 1024, 1025, 4096, 8191]
CLASSES += [16384, 32768, 50257, 65537, 128256, 262144]


@pytest.fixture(scope="module")
def fused() -> None:
    """The library with CUDA for the devices that are visible, which the first call builds."""
    logits = torch.zeros(1, 2, device=DEVICE)
    output = kd_loss(logits, logits, temperature=1.0, alpha=1.0)
    assert output.backend == "fused", status().cuda_reason


def problem(rows: int, classes: int, dtype: torch.dtype, students: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * classes)
    shape = (students, rows, classes) if students else (rows, classes)
    student = 3 * torch.randn(shape, generator=generator)
    teacher = 3 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    return student.to(DEVICE, dtype), teacher.to(DEVICE, dtype), labels.to(DEVICE)


def loss_and_gradient(student: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    loss = kd_loss(student, *args, **options).loss
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach(), gradient


def exact(student: Tensor, teacher: Tensor, labels: Tensor | None, **options: Any):
    """The same call on the CPU in float64, from the same rounded inputs."""
    moved = {
        name: value.cpu().double() if isinstance(value, Tensor) and value.is_floating_point()
        else value.cpu() if isinstance(value, Tensor) else value
        for name, value in options.items()
    }  # fmt: skip
    labels = None if labels is None else labels.cpu()
    return loss_and_gradient(student.cpu().double(), teacher.cpu().double(), labels, **moved)


def eager(student: Tensor, teacher: Tensor, labels: Tensor, t: float, alpha: float) -> Tensor:
    log_q, p = F.log_softmax(student / t, -1), F.softmax(teacher / t, -1)
    kl = F.kl_div(log_q, p, reduction="batchmean") * t * t
    return alpha * kl + (1 - alpha) * F.cross_entropy(student, labels)


def assert_right(found: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype):
    (loss, gradient), (right_loss, right_gradient) = found, right
    tight = 1e-11 if dtype is torch.float64 else 3e-6
    torch.testing.assert_close(loss.double().cpu(), right_loss, rtol=tight, atol=tight / 10)
    size = right_gradient.abs()
    bound = torch.finfo(dtype).eps * size + tight * size.max()
    if dtype is torch.float16:
        bound += 6e-8
    assert ((gradient.double().cpu() - right_gradient).abs() <= bound).all()


@pytest.mark.parametrize("rows", [1, 2, 131, 2000])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_and_gradients(dtype, classes, rows):
    if rows * classes > 1 << 24:
        pytest.skip("as few rows do")
    student, teacher, labels = problem(rows, classes, dtype)
    index = CLASSES.index(classes) + rows
    options = {"temperature": (0.5, 1.0, 2.0, 3.7, 4.0, 20.0)[index % 6], "alpha": 0.7}
    found = loss_and_gradient(student, teacher, labels, **options)
    assert_right(found, exact(student, teacher, labels, **options), dtype)


@pytest.mark.parametrize("classes", [10, 100, 1000, 50257])
def test_loss_is_at_least_as_right_as_eagers(classes):
    student, teacher, labels = problem(131, classes, torch.float32)
    right, _ = exact(student, teacher, labels, temperature=4.0, alpha=0.9)
    ours = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.9).loss
    theirs = eager(student, teacher, labels, 4.0, 0.9)
    error = (ours.double().cpu() - right).abs()
    assert error <= (theirs.double().cpu() - right).abs() + 1e-7 * right.abs()


@pytest.mark.parametrize("classes", [10, 100, 4096, 40000])
def test_everything_per_row_with_a_mask(classes):
    rows = 33
    student, teacher, labels = problem(rows, classes, torch.float32)
    mask = torch.rand(rows, classes, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, :2] = True
    mask[3] = False
    labels[5] = -100
    options = {
        "student_temperature": torch.linspace(0.5, 4, rows, device=DEVICE),
        "teacher_temperature": torch.linspace(3, 1, rows, device=DEVICE),
        "kl_weight": torch.linspace(0, 1, rows, device=DEVICE),
        "ce_weight": torch.linspace(1, 0, rows, device=DEVICE),
        "class_mask": mask.to(DEVICE),
        "reduction": "none",
    }
    found = loss_and_gradient(student, teacher, labels, **options)
    assert_right(found, exact(student, teacher, labels, **options), torch.float32)


@pytest.mark.parametrize("classes", [10, 100, 5000, 140000])
def test_gradients_of_temperatures(classes):
    student, teacher, labels = problem(5, classes, torch.float32)

    def slopes(device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        temperature = torch.linspace(1, 4, 5, device=device, dtype=dtype).requires_grad_()
        inputs = (student.to(device, dtype), teacher.to(device, dtype), labels.to(device))
        loss = kd_loss(*inputs, temperature=temperature, alpha=0.7).loss
        return torch.autograd.grad(loss, temperature)

    for found, right in zip(
        slopes(DEVICE, torch.float32), slopes("cpu", torch.float64), strict=True
    ):
        torch.testing.assert_close(found.double().cpu(), right, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("classes", [10, 100, 1001, 50257, 140000])
def test_many_students_are_as_many_calls(classes):
    student, teacher, labels = problem(9, classes, torch.float32, students=3)
    temperatures = [1.0, 2.0, 4.0]
    losses, gradient = loss_and_gradient(
        student, teacher, labels, temperature=temperatures, alpha=0.5
    )
    for k, temperature in enumerate(temperatures):
        loss, alone = loss_and_gradient(
            student[k], teacher, labels, temperature=temperature, alpha=0.5
        )
        torch.testing.assert_close(losses[k], loss)
        torch.testing.assert_close(gradient[k], alone)


def test_strides_and_mixed_types():
    wide, teacher, labels = problem(33, 210, torch.bfloat16)
    cases = [wide[:, 1:101], wide[:, 3:203:2], wide[:, :100]]
    for student in cases:
        options = {"temperature": 2.0, "alpha": 0.5}
        other = teacher[:, :100].float()
        found = loss_and_gradient(student, other, labels % 100, **options)
        assert_right(found, exact(student, other, labels % 100, **options), torch.bfloat16)


def test_a_bad_value_makes_its_row_nan_and_no_other():
    student, teacher, labels = problem(5, 100, torch.float32)
    labels[1] = 100
    temperature = torch.full((5,), 2.0, device=DEVICE)
    temperature[2] = -1
    options = {"temperature": temperature, "alpha": 0.5, "reduction": "none"}
    loss, gradient = loss_and_gradient(student, teacher, labels, **options)
    bad = torch.tensor([False, True, True, False, False], device=DEVICE)
    assert torch.equal(loss.isnan(), bad)
    assert torch.equal(gradient.isnan().all(-1), bad)
    assert torch.equal(gradient.isnan().any(-1), bad)


def test_a_small_divergence_keeps_its_digits():
    _, teacher, _ = problem(8, 128256, torch.float32)
    student = teacher + 0.01 * torch.randn_like(teacher)
    found = kd_loss(student, teacher, temperature=4.0, alpha=1.0).kl
    right = kd_loss(student.cpu().double(), teacher.cpu().double(), temperature=4.0, alpha=1.0).kl
    torch.testing.assert_close(found.double().cpu(), right, rtol=1e-5, atol=0)


def test_infinite_logits_and_no_rows():
    student, teacher, labels = problem(4, 100, torch.float32)
    student[0, 3] = -math.inf
    teacher[1, 3] = -math.inf
    labels[:] = 5
    options = {"temperature": 2.0, "alpha": 0.5, "reduction": "none"}
    loss, gradient = loss_and_gradient(student, teacher, labels, **options)
    assert loss[0] == math.inf
    assert loss[1:].isfinite().all()
    assert gradient.isfinite().all()
    empty = kd_loss(student[:0], teacher[:0], labels[:0], temperature=2.0, alpha=0.5)
    assert empty.loss == 0


@pytest.mark.parametrize("classes", [10, 1000, 50257, 140000])
def test_bits_do_not_change_from_run_to_run(classes):
    inputs = problem(300, classes, torch.bfloat16)
    first = loss_and_gradient(*inputs, temperature=2.0, alpha=0.5)
    for _ in range(5):
        again = loss_and_gradient(*inputs, temperature=2.0, alpha=0.5)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shape", [(256, 100), (16, 50257), (4, 140000)])
def test_a_graph_replays_what_it_captured(shape):
    student, teacher, labels = problem(*shape, torch.float32)
    student.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        loss = kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5).loss
        return loss, torch.autograd.grad(loss, student)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        teacher.copy_(teacher.flip(0))
    graph.replay()
    for found, right in zip(captured, step(), strict=True):
        assert torch.equal(found, right)


def test_two_streams_do_not_disturb_each_other():
    problems = [problem(64, classes, torch.float32) for classes in (50257, 1000)]
    right = [loss_and_gradient(*inputs, temperature=2.0, alpha=0.5) for inputs in problems]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in problems]
    found: list[list[tuple[Tensor, Tensor]]] = [[], []]
    for _ in range(10):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[i].append(loss_and_gradient(*problems[i], temperature=2.0, alpha=0.5))
    torch.cuda.synchronize()
    for i, runs in enumerate(found):
        for run in runs:
            assert all(torch.equal(a, b) for a, b in zip(run, right[i], strict=True))


def test_the_host_never_waits():
    student, teacher, labels = problem(64, 1000, torch.float16)
    temperature = torch.full((64,), 2.0, device=DEVICE, requires_grad=True)
    student.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        kd_loss(student, teacher, labels, temperature=temperature, alpha=0.5).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert student.grad is not None


def test_float16_under_a_loss_scale():
    student, teacher, labels = problem(512, 1000, torch.float16)
    scale = 2.0**14
    student.requires_grad_()
    (kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss * scale).backward()
    _, right = exact(student, teacher, labels, temperature=4.0, alpha=0.5)
    error = (student.grad.double().cpu() / scale - right).abs()
    assert (error <= 2**-11 * right.abs() + 2**-24 / scale + 3e-6 * right.abs().max()).all()


def test_compiled_with_a_dynamic_batch():
    @torch.compile(fullgraph=True, dynamic=True)
    def step(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5).loss

    for rows in (16, 33):
        student, teacher, labels = problem(rows, 100, torch.float32)
        student.requires_grad_()
        loss = step(student, teacher, labels)
        (gradient,) = torch.autograd.grad(loss, student)
        right = exact(student, teacher, labels, temperature=2.0, alpha=0.5)
        assert_right((loss.detach(), gradient), right, torch.float32)


@pytest.mark.parametrize("rows", [8191, 8192, 8193, 100_000])
@pytest.mark.parametrize("students", [0, 3])
def test_sums_of_many_rows(rows, students):
    student, teacher, labels = problem(rows, 10, torch.float32, students)
    options = {"temperature": 2.0, "alpha": 0.5}
    output = kd_loss(student, teacher, labels, **options)
    per_row = kd_loss(student, teacher, labels, **options, reduction="none")
    for found, values in zip(output, per_row, strict=True):
        torch.testing.assert_close(found.double(), values.double().mean(-1), rtol=2e-7, atol=0)
    again = kd_loss(student, teacher, labels, **options)
    assert all(torch.equal(a, b) for a, b in zip(output, again, strict=True))


def half_of_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Its gradient is the stored one times a half, which is exact."""
    return 0.5 * kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5).loss


def peak_beside(step: Callable[[], Any]) -> tuple[Any, int]:
    """The step's result, and the most memory that it took beyond what was allocated before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = step()
    return result, torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_last_backward_pass_scales_in_place(dtype, reduction, factor):
    student, teacher, labels = problem(1024, 1000, dtype)
    student.requires_grad_()
    loss = kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5, reduction=reduction).loss
    by = torch.full_like(loss, factor)
    if reduction == "none":
        by[::3] = 2.0
    kept, peak = peak_beside(lambda: torch.autograd.grad(loss, student, by, retain_graph=True)[0])
    assert peak >= student.nbytes
    again = torch.autograd.grad(loss, student, by, retain_graph=True)[0]
    assert torch.equal(kept, again)
    assert kept.data_ptr() != again.data_ptr()
    _, peak = peak_beside(lambda: loss.backward(by))
    assert peak < student.nbytes
    assert torch.equal(student.grad, kept)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, student, by)


def test_a_later_step_does_not_change_an_earlier_gradient():
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    half_of_loss(student, teacher, labels).backward()
    first, copy = student.grad, student.grad.clone()
    for _ in range(3):
        student.grad = None
        half_of_loss(student, teacher.flip(0), labels).backward()
        assert not torch.equal(student.grad, first)
    assert torch.equal(first, copy)
    student.grad = first
    half_of_loss(student, teacher, labels).backward()
    assert torch.equal(first, 2 * copy)


def test_hooks_on_the_logits_may_keep_and_change_the_gradient():
    leaf, teacher, labels = problem(64, 1000, torch.float32)
    leaf.requires_grad_()
    (right,) = torch.autograd.grad(half_of_loss(leaf, teacher, labels), leaf)
    seen = []

    def hook(gradient: Tensor) -> Tensor:
        seen.append(gradient)
        return gradient.mul_(2)

    student = leaf * 1
    student.register_hook(hook)
    loss = half_of_loss(student, teacher, labels)
    loss.backward(retain_graph=True)
    assert torch.equal(leaf.grad, 2 * right)
    loss.backward()
    assert torch.equal(leaf.grad, 4 * right)
    assert all(torch.equal(gradient, 2 * right) for gradient in seen)


def test_logits_that_two_losses_use_get_the_sum():
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    (right,) = torch.autograd.grad(half_of_loss(student, teacher, labels), student)
    (half_of_loss(student, teacher, labels) + half_of_loss(student, teacher, labels)).backward()
    assert torch.equal(student.grad, 2 * right)


def test_a_stored_gradient_that_hooks_return_is_not_changed():
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    packed = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5).loss
    copies = [tensor.clone() for tensor in packed]
    assert any(copy.shape == student.shape for copy in copies)
    loss.backward(torch.full_like(loss, 0.5))
    assert all(torch.equal(a, b) for a, b in zip(packed, copies, strict=True))


def test_of_two_threads_on_one_graph_one_gets_the_gradient():
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    (right,) = torch.autograd.grad(half_of_loss(student, teacher, labels), student)
    for _ in range(10):
        loss = half_of_loss(student, teacher, labels)
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(torch.autograd.grad, loss, student) for _ in range(2)]
        good = [run for run in runs if run.exception() is None]
        assert len(good) == 1
        assert torch.equal(good[0].result()[0], right)


@pytest.mark.parametrize("forward_captured", [True, False])
def test_a_graph_of_the_backward_pass_gives_the_same_at_every_replay(forward_captured):
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    forward, backward, stream = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    half = torch.full((), 0.5, device=DEVICE)
    stream.wait_stream(torch.cuda.current_stream())

    def loss_of() -> Tensor:
        return kd_loss(student, teacher, labels, temperature=2.0, alpha=0.5).loss

    with torch.cuda.stream(stream):
        (right,) = torch.autograd.grad(loss_of(), student, half)
        loss = None if forward_captured else loss_of()
    if forward_captured:
        with torch.cuda.graph(forward, stream=stream):
            loss = loss_of()
        forward.replay()
    # The graph is not retained. What it releases lies in the pool of the two graphs, or among this
    # stream's free memory, and nothing here takes memory of either.
    pool = forward.pool() if forward_captured else None
    with torch.cuda.graph(backward, pool=pool, stream=stream):
        (found,) = torch.autograd.grad(loss, student, half)
    for _ in range(3):
        backward.replay()
        assert torch.equal(found, right)


def test_a_graph_of_a_whole_step_scales_once_at_every_replay():
    student, teacher, labels = problem(64, 1000, torch.float32)
    student.requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        (right,) = torch.autograd.grad(half_of_loss(student, teacher, labels), student)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        (found,) = torch.autograd.grad(half_of_loss(student, teacher, labels), student)
    for _ in range(3):
        graph.replay()
        assert torch.equal(found, right)


def test_graphed_callables_give_the_gradients_of_plain_calls():
    student, teacher, labels = problem(64, 1000, torch.float32)
    sample = (student.clone().requires_grad_(), teacher.clone(), labels.clone())
    graphed = torch.cuda.make_graphed_callables(half_of_loss, sample)
    for shift in range(3):
        inputs = student.roll(shift, 0).requires_grad_()
        right_loss = 0.5 * half_of_loss(inputs, teacher, labels)
        (right,) = torch.autograd.grad(right_loss, inputs)
        loss = 0.5 * graphed(inputs, teacher, labels)
        assert torch.equal(loss, right_loss)
        for retain in (True, False):
            (found,) = torch.autograd.grad(loss, inputs, retain_graph=retain)
            assert torch.equal(found, right)
