"""Weights put into a model: all of them, or everything but a head made for other classes."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from kdplatform.errors import UserError
from kdplatform.progress import say

_SHOWN = 3
# A counter that batch normalisation of today keeps and files of old lack; nothing here reads it.
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
        head_may_differ: whether the last linear layer keeps its own weights where the state's are
            of other shapes or absent, as for other classes.
        new_layers: prefixes of further weights that may be absent when the head may differ.

    Raises:
        UserError: weights are absent, unknown or of other shapes; says which.
    """
    own = network.state_dict()
    fits = {name for name in own if name in state and state[name].shape == own[name].shape}
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
    fitting = {name: tensor for name, tensor in state.items() if name not in kept}
    network.load_state_dict(fitting, strict=False)


def _head(network: nn.Module) -> str:
    """Returns the prefix of the last linear layer's weights."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return f"{linear[-1]}." if linear else "no head"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
