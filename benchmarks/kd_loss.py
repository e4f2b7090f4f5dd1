"""Times the distillation loss: eager PyTorch, torch.compile, other kernels where installed, ours.

    python -m benchmarks.kd_loss                      # the eight shapes, float32 and bfloat16
    python -m benchmarks.kd_loss --curve --plot c.png # a curve over the number of classes
    python -m benchmarks.kd_loss --threads 1 --cpu-time   # on a machine that others use as well

Contestants take turns within one run, so that a busy machine slows all of them alike, and the
median of their times is what counts. "Minimum bytes" are student, teacher and gradient once.
"""

import argparse
import functools
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peak_memory import peak_memory
from kdplatform.kernels import kd_loss
from kdplatform.kernels.backend import loaded

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = (
    (128, 10),
    (128, 100),
    (256, 1000),
    (1024, 1000),
    (128, 32000),
    (64, 128000),
    (65536, 10),
    (16384, 100),
)
CURVE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
CURVE_CLASSES = (2, 3, 5, 10, 16, 17, 32, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 32000, 128256)
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALPHA = 0.9


@dataclass
class Row:
    """One contestant on one shape. Times in microseconds; bytes per second in 1e9."""

    dtype: str
    rows: int
    classes: int
    contestant: str
    forward: float
    forward_backward: float
    times_eager: float
    gigabytes_per_second: float
    percent_of_copy: float
    peak_mebibytes: float
    loss_error: float
    gradient_error: float


def eager_loss(temperature: float) -> Loss:
    """The loss as RepDistiller and its successors write it."""

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        log_q = F.log_softmax(student / temperature, dim=1)
        p = F.softmax(teacher / temperature, dim=1)
        kl = F.kl_div(log_q, p, reduction="sum") * (temperature**2) / student.shape[0]
        return ALPHA * kl + (1 - ALPHA) * F.cross_entropy(student, labels)

    return loss


def our_loss(temperature: float) -> Loss:
    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return kd_loss(student, teacher, labels, temperature=temperature, alpha=ALPHA).loss

    return loss


def per_row_loss(temperature: float) -> Loss:
    """`kd_loss` with a temperature of either model and two weights for each row."""

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        rows = row_values(temperature, len(student), student.device)
        return kd_loss(
            student,
            teacher,
            labels,
            student_temperature=rows[0],
            teacher_temperature=rows[1],
            kl_weight=rows[2],
            ce_weight=rows[3],
        ).loss

    return loss


@functools.cache
def row_values(temperature: float, rows: int, device: torch.device) -> tuple[Tensor, ...]:
    """Two temperatures and two weights, each float32 [rows]."""
    values = (temperature, temperature, ALPHA, 1 - ALPHA)
    return tuple(torch.full((rows,), value, device=device) for value in values)


def fallback_loss(temperature: float) -> Loss:
    """`kd_loss` as it is where no library can be built."""
    ours = our_loss(temperature)

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        library = loaded.direct_call, loaded.devices
        loaded.direct_call, loaded.devices = None, frozenset()
        try:
            return ours(student, teacher, labels)
        finally:
            loaded.direct_call, loaded.devices = library

    return loss


def contestants(temperature: float, device: str, names: list[str]) -> dict[str, Loss]:
    eager = eager_loss(temperature)
    found = {"eager": eager, "compile": torch.compile(eager), "ours": our_loss(temperature)}
    found["per row"] = per_row_loss(temperature)
    found["fallback"] = fallback_loss(temperature)
    if device == "cuda" and importlib.util.find_spec("liger_kernel"):
        found["liger"] = liger_loss(temperature)
    if device == "cuda" and importlib.util.find_spec("fla"):
        found["fla"] = fla_loss(temperature)
    return {name: loss for name, loss in found.items() if name in names or not names}


def liger_loss(temperature: float) -> Loss:
    """The best composition of Liger's kernels: its KL of normalised inputs and its CE."""
    from liger_kernel.transformers import LigerCrossEntropyLoss, LigerKLDIVLoss

    divergence, cross_entropy = LigerKLDIVLoss(reduction="batchmean"), LigerCrossEntropyLoss()

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        log_q = F.log_softmax(student / temperature, dim=1)
        kl = divergence(log_q, F.softmax(teacher / temperature, dim=1))
        # Its cross entropy writes the gradient over its input.
        ce = cross_entropy(student.clone(), labels)
        return ALPHA * temperature**2 * kl + (1 - ALPHA) * ce

    return loss


def fla_loss(temperature: float) -> Loss:
    """Flash-linear-attention's fused divergence takes hidden states: the identity gives logits."""
    from fla.modules import FusedKLDivLoss

    divergence = FusedKLDivLoss()

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        identity = torch.eye(student.shape[1], device=student.device, dtype=student.dtype)
        kl = divergence(student / temperature, teacher / temperature, identity, identity)
        return ALPHA * temperature**2 * kl + (1 - ALPHA) * F.cross_entropy(student, labels)

    return loss


class Inputs:
    """Enough copies of one problem that on a device each comes from memory, not from its cache."""

    def __init__(self, rows: int, classes: int, dtype: torch.dtype, device: str) -> None:
        generator = torch.Generator(device).manual_seed(rows + classes)
        size = rows * classes * dtype.itemsize * 2
        copies = 1 if device == "cpu" else max(1, min(16, (256 << 20) // size))

        def logits() -> Tensor:
            values = torch.randn(rows, classes, generator=generator, device=device)
            return values.to(dtype)

        self.students = [logits().requires_grad_() for _ in range(copies)]
        self.teachers = [logits() for _ in range(copies)]
        self.labels = torch.randint(classes, (rows,), generator=generator, device=device)
        self.turn = 0

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns student, teacher and labels of the next copy."""
        self.turn = (self.turn + 1) % len(self.students)
        return self.students[self.turn], self.teachers[self.turn], self.labels


def time_once(step: Callable[[], object], clock: str, repeats: int) -> float:
    """Microseconds of one step, over a number of repeats."""
    if clock != "cuda":
        now = time.process_time if clock == "cpu-time" else time.perf_counter
        start = now()
        for _ in range(repeats):
            step()
        return (now() - start) / repeats * 1e6
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats * 1e3


def take_turns(
    steps: dict[str, Callable[[], object]], clock: str, seconds: float
) -> dict[str, float]:
    """Median time of each step in microseconds; they take turns until the time is up."""
    repeats = {}
    for name, step in steps.items():
        step()
        step()
        repeats[name] = max(1, min(100, int(2000 / max(time_once(step, clock, 1), 1))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or min(map(len, times.values())) < 5:
        for name, step in steps.items():
            times[name].append(time_once(step, clock, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def errors(loss: Loss, inputs: Inputs, temperature: float) -> tuple[float, float]:
    """Relative error of the loss, largest error of the gradient by its largest element."""
    student, teacher, labels = inputs.next()

    def run(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student = student.detach().requires_grad_()
        value = loss(student, teacher, labels)
        return value.detach().double(), torch.autograd.grad(value, student)[0].double()

    value, gradient = run(loss, student, teacher)
    exact, exact_gradient = run(eager_loss(temperature), student.double(), teacher.double())
    worst = (gradient - exact_gradient).abs().max() / exact_gradient.abs().max()
    return ((value - exact).abs() / exact.abs()).item(), worst.item()


def measure(
    rows: int,
    classes: int,
    dtype: torch.dtype,
    device: str,
    losses: dict[str, Loss],
    arguments: argparse.Namespace,
) -> list[Row]:
    torch._dynamo.reset()
    inputs = Inputs(rows, classes, dtype, device)

    def forward(loss: Loss) -> Callable[[], object]:
        return lambda: loss(*inputs.next())

    def forward_backward(loss: Loss) -> Callable[[], object]:
        def step() -> None:
            student, teacher, labels = inputs.next()
            student.grad = None
            loss(student, teacher, labels).backward()

        return step

    source = torch.empty(3 * rows * classes, dtype=dtype, device=device)[: 3 * rows * classes // 2]
    target = torch.empty_like(source)
    both = {name: forward_backward(loss) for name, loss in losses.items()}
    clock = "cpu-time" if arguments.cpu_time else device
    times = take_turns(both | {"copy": lambda: target.copy_(source)}, clock, arguments.seconds)
    forward_times = take_turns(
        {name: forward(loss) for name, loss in losses.items()}, clock, arguments.seconds / 3
    )
    least = 3 * rows * classes * dtype.itemsize
    result = []
    for name, loss in losses.items():
        loss_error, gradient_error = errors(loss, inputs, arguments.temperature)
        result.append(
            Row(
                str(dtype).removeprefix("torch."),
                rows,
                classes,
                name,
                forward_times[name],
                times[name],
                times["eager"] / times[name] if "eager" in times else float("nan"),
                least / times[name] / 1e3,
                100 * times["copy"] / times[name],
                peak_memory(both[name], inputs.students, device),
                loss_error,
                gradient_error,
            )
        )
    return result


def print_table(rows: list[Row]) -> None:
    print(
        f"{'type':9}{'shape':>14} {'contestant':11}{'forward':>10}{'fwd+bwd':>10}{'x eager':>9}"
        f"{'GB/s':>8}{'% copy':>8}{'MiB':>8}{'loss err':>10}{'grad err':>10}"
    )
    for row in rows:
        peak = f"{row.peak_mebibytes:.{0 if row.peak_mebibytes >= 10 else 3}f}"
        print(
            f"{row.dtype:9}{f'{row.rows}x{row.classes}':>14} {row.contestant:11}"
            f"{row.forward:10.1f}{row.forward_backward:10.1f}{row.times_eager:9.2f}"
            f"{row.gigabytes_per_second:8.1f}{row.percent_of_copy:8.1f}{peak:>8}"
            f"{row.loss_error:10.1e}{row.gradient_error:10.1e}"
        )


def summary(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Geometric mean and least of our speed against each other contestant, per type."""
    result = {}
    by_problem = {(row.dtype, row.rows, row.classes, row.contestant): row for row in rows}
    for dtype in dict.fromkeys(row.dtype for row in rows):
        for other in dict.fromkeys(row.contestant for row in rows if row.contestant != "ours"):
            ratios = [
                by_problem[dtype, row.rows, row.classes, other].forward_backward
                / row.forward_backward
                for row in rows
                if row.contestant == "ours" and row.dtype == dtype
            ]
            if ratios:
                result[f"{dtype} against {other}"] = {
                    "geometric_mean": statistics.geometric_mean(ratios),
                    "least": min(ratios),
                }
    return result


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    types = list(dict.fromkeys(row.dtype for row in rows))
    figure, axes = plt.subplots(1, len(types), figsize=(6 * len(types), 4), squeeze=False)
    for axis, dtype in zip(axes[0], types, strict=True):
        for name in dict.fromkeys(row.contestant for row in rows):
            chosen = [row for row in rows if row.contestant == name and row.dtype == dtype]
            axis.loglog(
                [row.classes for row in chosen],
                [row.gigabytes_per_second for row in chosen],
                marker=".",
                label=name,
            )
        axis.set(title=dtype, xlabel="classes", ylabel="GB/s of the minimum bytes, fwd + bwd")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if sys.platform == "linux"
        else [platform.processor()]
    )
    return f"{names[0]}, {torch.get_num_threads()} threads"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"], choices=TYPES)
    parser.add_argument("--shapes", nargs="+", help="such as 128x10; default: the eight")
    parser.add_argument("--contestants", nargs="+", default=[], help="default: all there are")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=2.0, help="per shape and type")
    parser.add_argument("--threads", type=int, help="of torch, on the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, not wall time")
    parser.add_argument("--curve", action="store_true", help="many numbers of classes instead")
    parser.add_argument("--plot", type=Path, help="PNG; default with --curve: beside --json")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    shapes = list(SHAPES)
    if arguments.curve:
        elements = CURVE_ELEMENTS[arguments.device]
        shapes = [(max(1, elements // classes), classes) for classes in CURVE_CLASSES]
    if arguments.shapes:
        shapes = [tuple(map(int, text.split("x"))) for text in arguments.shapes]
    two = torch.zeros(1, 2, device=arguments.device)
    serving = kd_loss(two, two, temperature=1.0, alpha=1.0).backend
    print(f"{machine(arguments.device)}; torch {torch.__version__}; {serving}")
    losses = contestants(arguments.temperature, arguments.device, arguments.contestants)
    rows: list[Row] = []
    for name in arguments.types:
        for shape in shapes:
            rows += measure(*shape, TYPES[name], arguments.device, losses, arguments)
    print_table(rows)
    for name, values in summary(rows).items():
        print(f"{name}: geometric mean {values['geometric_mean']:.2f}, least {values['least']:.2f}")
    if arguments.json:
        record = {"machine": machine(arguments.device), "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(record | {"summary": summary(rows)}, indent=2))
    beside = arguments.json.with_suffix(".png") if arguments.json and arguments.curve else None
    if path := arguments.plot or beside:
        plot(rows, path)


if __name__ == "__main__":
    main()
