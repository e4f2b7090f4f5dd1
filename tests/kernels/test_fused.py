"""The fused kernels against float64, by regime: what the contract tests do not reach."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform.kernels import kd_loss
from kdplatform.kernels.arguments import check_arguments
from kdplatform.kernels.reference import reference_rows

pytestmark = pytest.mark.usefixtures("fused_library")

BODIES = ["avx512", "avx2", "plain"]
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Rows and classes by regime: lanes are rows (to 16, to 32 with rows enough, to 128 in a small
# batch) or classes, a tail of one lane and of all but one, several blocks of sums, several chunks
# of a row, a gradient written past the caches, and no row, one row, a last group that is not full.
SHAPES = [
    (0, 10),
    (1, 2),
    (131, 3),
    (289, 7),
    (131, 10),
    (17, 16),
    (2, 31),
    (33, 32),
    (131, 33),
    (131, 100),
    (521, 100),
    (5, 100),
    (9, 1000),
    (2, 1001),
    (3, 1024),
    (5, 1025),
    (2, 4096),
    (1, 8191),
    (1, 16384),
    (2, 32768),
    (1, 50257),
    (1, 65537),
    (1, 128256),
    (1, 262144),
]


def problem(
    rows: int, classes: int, dtype: torch.dtype = torch.float32, students: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * classes)
    shape = (students, rows, classes) if students else (rows, classes)
    student = 3 * torch.randn(shape, generator=generator)
    teacher = 3 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    return student.to(dtype), teacher.to(dtype), labels


def eager(student: Tensor, teacher: Tensor, labels: Tensor, t: float, alpha: float) -> Tensor:
    log_q, p = F.log_softmax(student / t, -1), F.softmax(teacher / t, -1)
    kl = F.kl_div(log_q, p, reduction="sum") * t * t / student.shape[0]
    return alpha * kl + (1 - alpha) * F.cross_entropy(student, labels)


def with_gradient(loss: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach().double(), torch.autograd.grad(loss, student)[0].double()


def exact_rows(student: Tensor, teacher: Tensor, labels: Tensor | None, **options):
    """The reference in float64, from the same rounded inputs, with the row's gradient."""
    names = [
        "temperature",
        "alpha",
        "student_temperature",
        "teacher_temperature",
        "kl_weight",
        "ce_weight",
    ]
    leaf = student.double().requires_grad_()
    rows = reference_rows(
        check_arguments(
            leaf,
            teacher.double(),
            labels,
            *(options.get(name) for name in names),
            options.get("scale_by_t2", True),
            options.get("class_mask"),
            options.get("ignore_index", -100),
            "none",
        )
    )
    (gradient,) = torch.autograd.grad(rows.loss.sum(), leaf)
    return rows, gradient


# Pairwise: every shape meets every type and every body, every body every type but float64, which
# has one body.
ERROR_CASES = [
    (shape, TYPES[j], "plain" if TYPES[j] is torch.float64 else BODIES[(i + j) % 3])
    for i, shape in enumerate(SHAPES)
    for j in range(4)
]
# Only a gradient of 8 MiB is written past the caches: in float32, by the bodies that can.
ERROR_CASES += [((65, 32768), torch.float32, body) for body in ("avx512", "avx2")]


@pytest.mark.parametrize(
    ("shape", "dtype", "body"),
    ERROR_CASES,
    ids=[f"{rows}x{classes}-{str(t)[6:]}-{body}" for (rows, classes), t, body in ERROR_CASES],
)
def test_error_is_at_most_eagers(use_body, shape, dtype, body):
    use_body(body)
    student, teacher, labels = problem(*shape, dtype)
    student.requires_grad_()
    index = SHAPES.index(shape) if shape in SHAPES else 0
    temperature = (0.5, 1.0, 2.0, 3.7, 4.0, 20.0)[index % 6]
    alpha = (0.5, 1.0, 0.0, 0.9)[index % 4]
    ours = with_gradient(
        kd_loss(student, teacher, labels, temperature=temperature, alpha=alpha).loss, student
    )
    if shape[0] == 0:
        assert ours[0] == 0
        return
    plain = with_gradient(eager(student, teacher, labels, temperature, alpha), student)
    double = student.detach().double().requires_grad_()
    exact = with_gradient(eager(double, teacher.double(), labels, temperature, alpha), double)
    # float16 has no finer step; in float64 eager is the truth itself.
    smallest = {torch.float16: 6e-8, torch.float64: 1e-14}.get(dtype, 0.0)
    for mine, theirs, truth in zip(ours, plain, exact, strict=True):
        rounding = torch.finfo(dtype).eps
        size = truth.abs().max()
        error, eagers = (mine - truth).abs().max(), (theirs - truth).abs().max()
        if mine.ndim == 0:
            rounding = 1e-13 if dtype is torch.float64 else 4e-7
        assert error <= eagers + 2 * rounding * size + smallest


# Lanes are rows in the small batch and classes in the other.
@pytest.mark.parametrize("rows", [128, 521])
@pytest.mark.parametrize("body", BODIES)
def test_the_gradients_error_is_below_eagers_on_average(use_body, body, rows):
    # Long sums one after the other, and powers of a rounded exponential, once made it larger.
    use_body(body)
    ours, eagers = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        student, teacher = torch.randn(2, rows, 100, generator=generator)
        labels = torch.randint(100, (rows,), generator=generator)
        wide = student.double().requires_grad_()
        exact = with_gradient(eager(wide, teacher.double(), labels, 4.0, 0.9), wide)[1]
        student.requires_grad_()
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.9).loss
        for errors, value in ((ours, loss), (eagers, eager(student, teacher, labels, 4.0, 0.9))):
            error = with_gradient(value, student)[1] - exact
            errors.append(torch.stack([error.abs().max(), error.norm()]))
    assert (sum(ours) <= sum(eagers)).all()


# Each layout of lanes for each pair of types, by one of the bodies in turn.
@pytest.mark.parametrize("teacher_type", TYPES, ids=str)
@pytest.mark.parametrize("student_type", TYPES, ids=str)
@pytest.mark.parametrize("classes", [10, 150])
def test_mixed_types(use_body, student_type, teacher_type, classes):
    use_body(BODIES[(TYPES.index(student_type) + TYPES.index(teacher_type) + classes) % 3])
    student, teacher, labels = problem(19, classes)
    student, teacher = student.to(student_type).requires_grad_(), teacher.to(teacher_type)
    rows = kd_loss(student, teacher, labels, temperature=3.0, alpha=0.5, reduction="none")
    exact, exact_gradient = exact_rows(
        student.detach(), teacher, labels, temperature=3.0, alpha=0.5
    )
    wide = torch.float64 in (student_type, teacher_type)
    assert rows.loss.dtype is (torch.float64 if wide else torch.float32)
    tolerance = {"rtol": 1e-12 if wide else 2e-6, "atol": 1e-12 if wide else 1e-6}
    torch.testing.assert_close(rows.loss.double(), exact.loss, **tolerance)
    torch.testing.assert_close(rows.kl.double(), exact.kl, **tolerance)
    torch.testing.assert_close(rows.ce.double(), exact.ce, **tolerance)
    (gradient,) = torch.autograd.grad(rows.loss.sum(), student)
    rounding = max(2 * torch.finfo(student_type).eps, 1e-14 if wide else 1e-6)
    torch.testing.assert_close(
        gradient.double(), exact_gradient, rtol=rounding, atol=1e-6 if not wide else 1e-7
    )


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("classes", [6, 100, 300])
def test_everything_per_row_and_masked(use_body, body, classes):
    use_body(body)
    rows = 35
    student, teacher, labels = problem(rows, classes)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, classes, generator=generator) < 0.7
    mask[3], mask[4, 1:] = False, False
    labels[::5] = -100
    temperatures = (torch.rand(rows, generator=generator) + 0.5).requires_grad_()
    options = {
        "student_temperature": temperatures,
        "teacher_temperature": torch.rand(rows, generator=generator) + 1,
        "kl_weight": torch.rand(rows, generator=generator).round(decimals=1),
        "ce_weight": torch.rand(rows, generator=generator),
        "class_mask": mask,
    }
    student.requires_grad_()
    ours = kd_loss(student, teacher, labels, reduction="none", **options)
    gradient, by_temperature = torch.autograd.grad(ours.loss.sum(), (student, temperatures))
    exact, exact_gradient = exact_rows(student.detach(), teacher, labels, **options)
    (exact_by_temperature,) = torch.autograd.grad(
        reference_loss(student.detach().double(), teacher.double(), labels, options), temperatures
    )
    for mine, truth in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.double(), truth.detach(), rtol=3e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_temperature, exact_by_temperature, rtol=1e-4, atol=1e-5)


def reference_loss(student: Tensor, teacher: Tensor, labels: Tensor, options: dict) -> Tensor:
    order = ("student_temperature", "teacher_temperature", "kl_weight", "ce_weight")
    arguments = check_arguments(
        student,
        teacher,
        labels,
        None,
        None,
        *(options[name] for name in order),
        True,
        options["class_mask"],
        -100,
        "none",
    )
    return reference_rows(arguments).loss.sum()


@pytest.mark.parametrize("classes", [10, 200])
def test_many_students_equal_one_call_each(classes):
    student, teacher, labels = problem(21, classes, students=3)
    student.requires_grad_()
    temperatures = [1.0, 3.0, 4.0]
    losses = kd_loss(student, teacher, labels, temperature=temperatures, alpha=0.5).loss
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    for k in range(3):
        one = student[k].detach().requires_grad_()
        loss = kd_loss(one, teacher, labels, temperature=temperatures[k], alpha=0.5).loss
        torch.testing.assert_close(losses[k], loss, rtol=2e-6, atol=0)
        (expected,) = torch.autograd.grad(loss, one)
        torch.testing.assert_close(gradient[k], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("classes", [10, 100, 1001])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],  # rows apart
        lambda x: x.t().contiguous().t(),  # classes apart
        lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),  # misaligned
    ],
    ids=["rows", "classes", "misaligned"],
)
def test_strides_and_alignment_change_nothing(classes, view):
    student, teacher, labels = problem(37, classes)
    results = []
    for change in (lambda x: x, view):
        leaf = change(student).requires_grad_()
        loss = kd_loss(leaf, change(teacher), labels, temperature=2.0, alpha=0.5).loss
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0].contiguous()))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("body", BODIES)
def test_near_equal_logits_at_128256_classes(use_body, body):
    use_body(body)
    _, teacher, _ = problem(1, 128256)
    noise = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(3))
    student = teacher + 0.01 * noise
    kl = kd_loss(student, teacher, temperature=4.0, alpha=1.0).kl
    exact = kd_loss(student.double(), teacher.double(), temperature=4.0, alpha=1.0).kl
    torch.testing.assert_close(kl.double(), exact, rtol=1e-5, atol=0)


def test_bits_do_not_depend_on_threads():
    student, teacher, labels = problem(3000, 100)
    student.requires_grad_()
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
        results.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=0, atol=0)


class TestAutograd:
    def test_the_gradient_is_scaled_by_what_comes_in(self):
        student, teacher, labels = problem(20, 10)
        student.requires_grad_()
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
        (once,) = torch.autograd.grad(loss, student, retain_graph=True)
        (thrice,) = torch.autograd.grad(3 * loss, student)
        torch.testing.assert_close(thrice, 3 * once)

    def test_a_kept_graph_survives_a_caller_who_changes_the_gradient(self):
        student, teacher, labels = problem(20, 10)
        student.requires_grad_()
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
        (first,) = torch.autograd.grad(loss, student, retain_graph=True)
        expected = first.clone()
        first.zero_()
        (second,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(second, expected)

    def test_rows_are_weighted_without_reduction(self):
        student, teacher, labels = problem(20, 10, torch.bfloat16)
        student.requires_grad_()
        rows = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5, reduction="none").loss
        weights = torch.linspace(0, 2, 20)
        (gradient,) = torch.autograd.grad((weights * rows).sum(), student)
        _, exact = exact_rows(student.detach(), teacher, labels, temperature=4.0, alpha=0.5)
        torch.testing.assert_close(
            gradient.double(), exact * weights[:, None].double(), rtol=0.01, atol=1e-6
        )

    def test_no_grad_computes_no_gradient(self):
        student, teacher, labels = problem(20, 10)
        student.requires_grad_()
        with torch.no_grad():
            output = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5)
        assert not output.loss.requires_grad

    def test_float16_gradients_survive_a_loss_scale(self):
        # Probabilities of 1e-5 would be subnormal in float16 without a scale of their own.
        student, teacher, labels = problem(4, 50000, torch.float16)
        student.requires_grad_()
        scale = 2.0**14
        loss = kd_loss(student, teacher, labels, temperature=1.0, alpha=1.0).loss
        (gradient,) = torch.autograd.grad(scale * loss, student)
        _, exact = exact_rows(student.detach(), teacher, labels, temperature=1.0, alpha=1.0)
        exact = scale * exact / 4
        large = exact.abs() > 1e-3
        relative = ((gradient.double() - exact) / exact)[large].abs()
        assert relative.max() < 2e-3

    def test_a_second_derivative_is_an_error(self):
        student, teacher, labels = problem(20, 10)
        student.requires_grad_()
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
        with pytest.raises(RuntimeError, match="kd_loss: backward with create_graph=True"):
            torch.autograd.grad(loss, student, create_graph=True)

    def test_checkpointing_gives_the_same_gradient(self):
        student, teacher, labels = problem(20, 10)
        student.requires_grad_()

        def loss(student: Tensor) -> Tensor:
            return kd_loss(2 * student, teacher, labels, temperature=4.0, alpha=0.5).loss

        (expected,) = torch.autograd.grad(loss(student), student)
        again = torch.utils.checkpoint.checkpoint(loss, student, use_reentrant=False)
        torch.testing.assert_close(torch.autograd.grad(again, student)[0], expected)
