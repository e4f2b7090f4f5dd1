"""Errors that name the argument, its value and what is allowed."""

import math

import pytest
import torch

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")

NAN, INF = math.nan, math.inf

GOOD = {
    "student_logits": torch.zeros(2, 4),
    "teacher_logits": torch.zeros(2, 4),
    "labels": torch.zeros(2).long(),
    "temperature": 2.0,
    "alpha": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
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
        ({"labels": torch.tensor([0, 4])}, ValueError, "labels: 4 in row 1; allowed: 0 to 3"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "labels: -1 in row 0; allowed: 0 to 3"),
        ({"temperature": 0}, ValueError, "temperature: 0; allowed: finite, greater than 0"),
        ({"temperature": -1.0}, ValueError, "temperature: -1.0"),
        ({"temperature": NAN}, ValueError, "temperature: nan"),
        ({"temperature": INF}, ValueError, "temperature: inf"),
        ({"temperature": "4"}, TypeError, "temperature: '4'; allowed: a number"),
        ({"temperature": True}, TypeError, "temperature: True"),
        ({"temperature": None}, TypeError, "temperature: missing"),
        ({"temperature": [1.0, 2.0]}, TypeError, "temperature: .*; allowed: a number"),
        ({"teacher_temperature": 0.0}, ValueError, "teacher_temperature: 0.0"),
        ({"temperature": torch.tensor([1.0, 0.0])}, ValueError, r"temperature: 0(\.0)? in row 1"),
        (
            {"student_temperature": torch.tensor([NAN, 1.0])},
            ValueError,
            "student_temperature: nan in row 0",
        ),
        ({"temperature": torch.ones(3)}, ValueError, r"temperature: shape \[3\]; .* \[2\]"),
        ({"temperature": torch.ones(2).long()}, TypeError, "temperature: torch.int64"),
        ({"alpha": 1.5}, ValueError, "alpha: 1.5; allowed: 0 to 1"),
        ({"alpha": -0.5}, ValueError, "alpha: -0.5"),
        ({"alpha": NAN}, ValueError, "alpha: nan"),
        ({"alpha": None}, TypeError, "alpha: missing"),
        ({"alpha": None, "kl_weight": -1.0}, ValueError, "kl_weight: -1.0"),
        (
            {"alpha": None, "ce_weight": torch.tensor([0.0, NAN])},
            ValueError,
            "ce_weight: nan in row 1",
        ),
        ({"kl_weight": 1.0}, TypeError, "alpha: given with kl_weight"),
        (
            {"alpha": torch.ones(2, requires_grad=True)},
            ValueError,
            "weight: requires grad",
        ),
        ({"alpha": None, "ce_weight": 1.0, "labels": None}, ValueError, "ce_weight: 1.0 without"),
        ({"class_mask": torch.ones(2, 4)}, TypeError, "class_mask: torch.float32; allowed: bool"),
        (
            {"class_mask": torch.ones(3).bool()},
            ValueError,
            r"class_mask: shape \[3\]; allowed: \[4\] or \[2, 4\]",
        ),
        ({"ignore_index": 1.5}, TypeError, "ignore_index: 1.5; allowed: an int"),
        ({"reduction": "avg"}, ValueError, "reduction: 'avg'; allowed: 'mean', 'sum', 'none'"),
    ],
)
def test_bad_input_is_named_in_one_line(changes, error, message):
    arguments = GOOD | changes
    with pytest.raises(error, match=message) as caught:
        kd_loss(**arguments)
    assert "\n" not in str(caught.value)
