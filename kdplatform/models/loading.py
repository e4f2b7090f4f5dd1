"""Loads weights into a model: all of them, or all except a head for other classes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdplatform.errors import UserError
from kdplatform.progress import say

_SHOWN = 3
# A counter of present batch normalisation that old files lack. Nothing here reads it.
_COUNTER = "num_batches_tracked"


def load_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    head_may_differ: bool,
    new_layers: Sequence[str] = (),
) -> None:
    """Loads a state dict into a network in place.

    Args:
        source: names the weights in messages.
        head_may_differ: whether the last linear layer keeps its own weights if the state's have
            other shapes or are absent, as for other classes.
        new_layers: prefixes of further weights that may be absent when the head may differ.

    Raises:
        UserError: weights are absent, unknown, of other shapes or kinds, or not finite; names them.
    """
    own = network.state_dict()
    common = own.keys() & state.keys()
    fits = {name for name in common if state[name].shape == own[name].shape}
    kinds = [
        f"{name} {_kind(state[name])} instead of {_kind(own[name])}"
        for name in own
        if name in common and not name.endswith(_COUNTER) and _kind(state[name]) != _kind(own[name])
    ]
    free = (_head(network), *new_layers) if head_may_differ else ()
    kept = {name for name in own if name not in fits and name.startswith(free)}
    bad = [name for name in own if name not in fits | kept]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in bad
        if name in state
    ]
    missing = [name for name in bad if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in own]
    problems = [
        f"{len(names)} {words} ({_first(names)})"
        for names, words in (
            (missing, "are missing"),
            (unknown, "are unknown"),
            (shapes, "have other shapes"),
            (kinds, "are of other kinds"),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"weights={source!r} do not fit: of {len(own)} weights, {', '.join(problems)}; allowed:"
            " the weights of the same architecture, image_size and classes"
        )
    if kept:
        say(f"{source}: the head is new, for other classes ({_first(sorted(kept))})")
    fitting = {n: tensor.to(own[n].dtype) for n, tensor in state.items() if n not in kept}
    refuse_not_finite(fitting, source)
    network.load_state_dict(fitting, strict=False)


def refuse_not_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raises a UserError that names the first weights with a NaN or an infinity in them."""
    for name, tensor in state.items():
        bad = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise UserError(
                f"weights={source!r}: {bad} of the {tensor.numel()} numbers of {name} are NaN or "
                "infinite; allowed: finite weights"
            )


def for_classes(
    network: nn.Module,
    state: Mapping[str, Tensor],
    given: Sequence[str],
    wanted: Sequence[str],
    *,
    source: str,
    head_may_differ: bool,
) -> Mapping[str, Tensor]:
    """Returns a state dict whose outputs are the wanted classes, in their order.

    The rows of the last linear layer are reordered. If the classes differ, the head is omitted, so
    that `load_weights` keeps the network's own.

    Args:
        given: the class of each output that the state dict was trained for.

    Raises:
        UserError: the classes differ, and the head may not differ.
    """
    if tuple(given) == tuple(wanted):
        return state
    head = _head(network)
    if sorted(given) == sorted(wanted) and len(set(given)) == len(given):
        say(
            f"{source}: its classes stand in another order ({_first(given)}); its outputs are "
            f"brought into the dataset's ({_first(wanted)})"
        )
        rows = torch.tensor([list(given).index(name) for name in wanted])
        # `load_weights` refuses a layer that is no head of this many classes.
        moved = {
            name: tensor[rows]
            for name, tensor in state.items()
            if name.startswith(head)
            and _kind(tensor) == "floating point"
            and tensor.shape[:1] == (len(given),)
        }
        return {**state, **moved}
    if not head_may_differ:
        raise UserError(
            f"weights={source!r} are for the classes {_first(given)}; this dataset has "
            f"{_first(wanted)}; allowed with frozen=true: weights for the same classes"
        )
    return {name: tensor for name, tensor in state.items() if not name.startswith(head)}


def _kind(tensor: Tensor) -> str:
    """Returns the kind of a tensor's numbers, which a state dict and the weights must share."""
    if tensor.is_meta:
        return "without values"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout is not torch.strided:
        return "sparse"
    if tensor.is_floating_point():
        return "floating point"
    return "complex" if tensor.is_complex() else "integer"


def _head(network: nn.Module) -> str:
    """Returns the prefix of the last linear layer's weights."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return f"{linear[-1]}." if linear else "no head"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
