"""Detects forward-mode differentiation, which the loss refuses, and active transforms.

Only torch's internal functions can tell. Inside `torch.func.jvp` a tensor is a wrapper, possibly
nested, and a wrapper's tangent is visible only at the level of the transform that made it.
"""

import contextlib

from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    maybe_get_level,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad


def transforms_are_active() -> bool:
    """Returns whether this runs inside one of `torch.func`'s transforms."""
    return peek_interpreter_stack() is not None


def has_tangent(tensor: Tensor) -> bool:
    """Returns whether the tensor carries a tangent, at any level of `torch.func`'s transforms."""
    if forward_ad._current_level < 0:  # the common case
        return False
    with contextlib.ExitStack() as levels:
        while True:
            level = maybe_get_level(tensor)  # negative if it is no wrapper
            while (top := peek_interpreter_stack()) is not None and top.level() > level:
                levels.enter_context(temporarily_pop_interpreter_stack())
            if not is_batchedtensor(tensor) and _has_own_tangent(tensor):
                return True
            if level < 0:
                return False
            tensor = get_unwrapped(tensor)


def _has_own_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]
