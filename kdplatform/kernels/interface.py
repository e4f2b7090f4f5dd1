"""The operators that Python expects of a library of kernels."""

import torch

_ARGUMENTS = (
    "Tensor student_logits, Tensor teacher_logits, Tensor? labels, Tensor? class_mask, "
    "Tensor? student_temperatures, Tensor? teacher_temperatures, Tensor? kl_weights, "
    "Tensor? ce_weights, float student_temperature, float teacher_temperature, float kl_weight, "
    "float ce_weight, bool scale_by_t2, int ignore_index, int reduction"
)
_SCHEMAS = {
    "kd_loss": f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    "kd_loss_forward": f"({_ARGUMENTS}, bool wants_gradient, bool wants_temperature_gradient) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "kd_loss_backward": "(Tensor gradient, Tensor gradient_scale, Tensor grad_loss) -> Tensor",
}


def check_operators() -> None:
    """Checks that the loaded library was built from the sources of this Python package.

    Raises:
        ImportError: an operator is missing, or takes other arguments.
    """
    for name, expected in _SCHEMAS.items():
        operator = getattr(torch.ops.kdplatform, name, None)
        found = "" if operator is None else str(operator.default._schema)
        if found != f"kdplatform::{name}{expected}":
            raise ImportError(
                f"the C++ sources do not belong to this version of the package (operator {name} is "
                "another); install the package anew"
            )
