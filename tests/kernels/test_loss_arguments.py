"""Errors that name the argument, its value and what is allowed."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from kdplatform.kernels import kd_loss
from kdplatform.kernels.toolchain import SOURCES
from kdplatform.settings.schema import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = math.nan, math.inf

GOOD = {
    "student_logits": torch.zeros(2, 4),
    "teacher_logits": torch.zeros(2, 4),
    "labels": torch.zeros(2).long(),
    "temperature": 2.0,
    "alpha": 0.5,
}
STUDENTS = {"student_logits": torch.zeros(3, 2, 4)}


# The same for all backends: no backend is asked yet.
BAD_ARGUMENTS = [
    ({"student_logits": torch.zeros(2, 4).long()}, TypeError, r"student_logits: .*int64"),
    ({"teacher_logits": torch.zeros(2, 4).int()}, TypeError, r"teacher_logits: .*int32"),
    ({"student_logits": [[0.0, 1.0]]}, TypeError, "student_logits: list; allowed: a tensor"),
    ({"student_logits": torch.zeros(4)}, ValueError, r"student_logits: shape \[4\]"),
    ({"teacher_logits": torch.zeros(2, 5)}, ValueError, r"teacher_logits: shape \[2, 5\]"),
    ({"teacher_logits": torch.zeros(3, 4)}, ValueError, r"teacher_logits: shape \[3, 4\]"),
    (
        {"student_logits": torch.zeros(2, 1), "teacher_logits": torch.zeros(2, 1)},
        ValueError,
        r"student_logits: 1 class.* allowed: 2 or more",
    ),
    (
        {"teacher_logits": torch.zeros(2, 4, device="meta")},
        ValueError,
        "teacher_logits: on meta; allowed: cpu",
    ),
    ({"labels": torch.zeros(2)}, TypeError, r"labels: torch.float32; allowed: int64"),
    ({"labels": torch.zeros(2).bool()}, TypeError, r"labels: torch.bool"),
    ({"labels": torch.zeros(3).long()}, ValueError, r"labels: shape \[3\]; allowed: \[2\]"),
    ({"temperature": 0}, ValueError, "temperature: 0; allowed: 1e-6 to 1e6"),
    ({"temperature": -1.0}, ValueError, "temperature: -1.0"),
    ({"temperature": NAN}, ValueError, "temperature: nan"),
    ({"temperature": INF}, ValueError, "temperature: inf"),
    ({"temperature": 1e-39}, ValueError, "temperature: 1e-39; allowed: 1e-6 to 1e6"),
    ({"temperature": 1e20}, ValueError, r"temperature: 1e\+20; allowed: 1e-6 to 1e6"),
    ({"temperature": 10**400}, ValueError, r"temperature: 1000.*; allowed: 1e-6 to 1e6"),
    ({"temperature": 10**5000}, ValueError, r"temperature: int; allowed: 1e-6 to 1e6"),
    (
        {"temperature": np.array([1.0, 2.0])},
        TypeError,
        r"temperature: array\(\[1., 2.\]\); allowed: a number, or a tensor",
    ),
    ({"temperature": np.ones((30, 30))}, TypeError, "temperature: array.*; allowed: a number"),
    ({"temperature": "4"}, TypeError, "temperature: '4'; allowed: a number"),
    ({"temperature": True}, TypeError, "temperature: True"),
    ({"temperature": None}, TypeError, "temperature: missing"),
    ({"temperature": [1.0, 2.0]}, TypeError, "temperature: .*; allowed: a number"),
    ({"teacher_temperature": 0.0}, ValueError, "teacher_temperature: 0.0"),
    ({"temperature": torch.ones(3)}, ValueError, r"temperature: shape \[3\]; .* \[2\]"),
    ({"temperature": torch.ones(2).long()}, TypeError, "temperature: torch.int64"),
    ({"alpha": 1.5}, ValueError, "alpha: 1.5; allowed: 0 to 1"),
    ({"alpha": -0.5}, ValueError, "alpha: -0.5"),
    ({"alpha": NAN}, ValueError, "alpha: nan; allowed: 0 to 1"),
    ({"alpha": 10**400}, ValueError, "alpha: 1000.*; allowed: 0 to 1"),
    ({"alpha": "0.5"}, TypeError, "alpha: '0.5'; allowed: a number"),
    ({"alpha": torch.ones(2).long()}, TypeError, "^alpha: torch.int64; allowed: a floating"),
    ({"alpha": torch.ones(3)}, ValueError, r"^alpha: shape \[3\]; allowed: a number or \[2\]"),
    (STUDENTS | {"alpha": [0.5, 2.0, 0.0]}, ValueError, "^alpha: 2.0; allowed: 0 to 1"),
    (STUDENTS | {"alpha": [0.5, 0.5]}, ValueError, r"^alpha: shape \[2\]; allowed: a number"),
    (STUDENTS | {"alpha": [0.5, 0.5, "x"]}, TypeError, "^alpha: 'x'; allowed: a number"),
    ({"alpha": None}, TypeError, "alpha: missing"),
    ({"alpha": None, "kl_weight": -1.0}, ValueError, "kl_weight: -1.0"),
    ({"kl_weight": 1.0}, TypeError, "alpha: given with kl_weight"),
    (
        {"alpha": torch.ones(2, requires_grad=True)},
        ValueError,
        "^alpha: requires grad",
    ),
    ({"alpha": None, "ce_weight": 1.0, "labels": None}, ValueError, "ce_weight: 1.0 without"),
    ({"class_mask": torch.ones(2, 4)}, TypeError, "class_mask: torch.float32; allowed: bool"),
    (
        {"class_mask": torch.ones(3).bool()},
        ValueError,
        r"class_mask: shape \[3\]; allowed: \[4\] or \[2, 4\]",
    ),
    ({"ignore_index": 1.5}, TypeError, "ignore_index: 1.5; allowed: an int"),
    ({"ignore_index": 2**63}, ValueError, "ignore_index: 922.*; allowed: an int of 64 bits"),
    ({"ignore_index": -(2**63) - 1}, ValueError, "ignore_index: -922.*; allowed: an int of"),
    ({"scale_by_t2": "false"}, TypeError, "scale_by_t2: 'false'; allowed: True or False"),
    ({"scale_by_t2": 1}, TypeError, "scale_by_t2: 1; allowed: True or False"),
    ({"reduction": "\ud800"}, ValueError, r"reduction: '\\ud800'; allowed: 'mean'"),
    ({"reduction": "mean\0x"}, ValueError, r"reduction: 'mean\\x00x'; allowed: 'mean'"),
    ({"reduction": None}, ValueError, "reduction: None; allowed: 'mean'"),
    ({"reduction": "avg"}, ValueError, "reduction: 'avg'; allowed: 'mean', 'sum', 'none'"),
]
# What is wrong with the values inside tensors, each backend finds out by itself.
BAD_VALUES = [
    ({"labels": torch.tensor([0, 4])}, ValueError, "labels: 4 in row 1; allowed: 0 to 3"),
    ({"labels": torch.tensor([-1, 0])}, ValueError, "labels: -1 in row 0; allowed: 0 to 3"),
    (
        {"temperature": torch.tensor([1.0, 1e30])},
        ValueError,
        r"temperature: 1(\.0\d*)?e\+30 in row 1; allowed: 1e-6 to 1e6",
    ),
    ({"temperature": torch.tensor(1e-39)}, ValueError, "temperature: .* in row 0; allowed: 1e"),
    ({"temperature": torch.tensor([1.0, 0.0])}, ValueError, r"temperature: 0(\.0)? in row 1"),
    (
        {"student_temperature": torch.tensor([NAN, 1.0])},
        ValueError,
        "student_temperature: nan in row 0",
    ),
    (
        {"alpha": torch.tensor([0.5, 1.5])},
        ValueError,
        "^alpha: 1.5 in row 1; allowed: 0 to 1",
    ),
    ({"alpha": torch.tensor([-0.5, 1.0])}, ValueError, "^alpha: -0.5 in row 0; allowed: 0 to"),
    ({"alpha": torch.tensor(NAN)}, ValueError, "^alpha: nan in row 0; allowed: 0 to 1"),
    (
        STUDENTS | {"alpha": torch.tensor([0.5, 0.5, -1.0])},
        ValueError,
        r"^alpha: -1.0 in row \[2, 0\]; allowed: 0 to 1",
    ),
    (
        {"alpha": None, "ce_weight": torch.tensor([0.0, NAN])},
        ValueError,
        "ce_weight: nan in row 1",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD_ARGUMENTS)
def test_bad_input_is_named_in_one_line(changes, error, message):
    arguments = GOOD | changes
    with pytest.raises(error, match=message) as caught:
        kd_loss(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "error", "message"), BAD_VALUES)
def test_a_bad_value_in_a_tensor_is_named_in_one_line(each_backend, changes, error, message):
    test_bad_input_is_named_in_one_line(changes, error, message)


def other_layout(name: str, layout: str) -> Tensor:
    """A tensor of ones like the argument, and laid out in a way that nothing here reads."""
    ones = torch.ones(2, 4 if name.endswith("logits") else 2)
    if layout == "nested":
        return torch.nested.nested_tensor([ones, ones])
    if layout == "jagged":
        return torch.nested.nested_tensor([ones, ones], layout=torch.jagged)
    return {"sparse_coo": ones.to_sparse, "sparse_csr": ones.to_sparse_csr}.get(
        layout, ones.to_mkldnn
    )()


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr", "_mkldnn", "nested", "jagged"])
@pytest.mark.parametrize(
    "name", ["student_logits", "teacher_logits", "labels", "temperature", "alpha", "class_mask"]
)
def test_a_layout_that_is_not_strided_is_named_in_one_line(name, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that these layouts are new
        value = other_layout(name, layout)
    shown = "nested" if layout in ("nested", "jagged") else f"layout torch.{layout}"
    with pytest.raises(TypeError, match=f"^{name}: {shown}; allowed: strided$"):
        kd_loss(**GOOD | {name: value})


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_the_ends_of_the_temperatures_range_are_allowed(each_backend, temperature):
    for value in (temperature, torch.tensor(temperature), torch.full((2,), temperature).double()):
        assert kd_loss(**GOOD | {"temperature": value}).loss.isfinite()


def test_the_sources_name_the_same_range_of_temperatures():
    text = (SOURCES / "row_parameters.h").read_text()
    numbers = re.search(r"lowest_temperature = (\S+), highest_temperature = (\S+);", text)
    assert [float(number) for number in numbers.groups()] == [
        LOWEST_TEMPERATURE,
        HIGHEST_TEMPERATURE,
    ]
