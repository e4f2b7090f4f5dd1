"""Features of any model, without changing it: the input of its last linear layer."""

from typing import Any

from torch import Tensor, nn

from kdplatform.errors import UserError


def logits_and_features(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the model's output for inputs [B, ...], and its features [B, ...].

    Raises:
        UserError: no linear layer of the model was called.
    """
    taken: list[Tensor] = []

    def take(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        # Each call replaces the previous one: the last linear layer is called last.
        taken[:] = [arguments[0]]

    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(take) for module in linear]
    try:
        logits: Tensor = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not taken:
        raise UserError(
            f"{type(model).__name__} has no linear layer, whose input would be its features; "
            "allowed: a method that needs logits alone, or a model with a linear layer"
        )
    return logits, taken[0]
