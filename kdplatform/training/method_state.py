"""The state in a method's attributes: moved, trained, saved and restored with the run."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdplatform.methods import Method


class MethodState:
    """The modules, parameters and tensors of a method, after its `begin`.

    The method may change its attributes, so they are looked up at each request. The state of a
    method that builds on a base includes that of the base.
    """

    def __init__(self, method: Method[Any]) -> None:
        self._method = method

    def _modules(self) -> dict[str, nn.Module]:
        return {k: v for k, v in vars(self._method).items() if isinstance(v, nn.Module)}

    def _tensors(self) -> dict[str, Tensor]:
        return {k: v for k, v in vars(self._method).items() if isinstance(v, Tensor)}

    def _inner(self) -> dict[str, "MethodState"]:
        return {k: MethodState(v) for k, v in vars(self._method).items() if isinstance(v, Method)}

    def to(self, device: torch.device) -> None:
        """Moves everything to the device."""
        for inner in self._inner().values():
            inner.to(device)
        for module in self._modules().values():
            module.to(device)
        for name, tensor in self._tensors().items():
            if tensor.device != device:
                moved = tensor.detach().to(device)
                trained = isinstance(tensor, nn.Parameter)
                setattr(self._method, name, nn.Parameter(moved) if trained else moved)

    def modules(self) -> Iterator[nn.Module]:
        """Yields the modules, including those of base methods."""
        yield from self._modules().values()
        for inner in self._inner().values():
            yield from inner.modules()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that are trained together with the model."""
        for module in self._modules().values():
            yield from module.parameters()
        for inner in self._inner().values():
            yield from inner.parameters()
        yield from (t for t in self._tensors().values() if isinstance(t, nn.Parameter))

    def train(self) -> None:
        """Puts the modules into training mode, those of `in_eval` into eval mode."""
        for name, module in self._modules().items():
            module.train(name not in self._method.in_eval)
        for inner in self._inner().values():
            inner.train()

    def content(self) -> dict[str, Any]:
        """Returns the content of a checkpoint, without what `begin` rebuilds and `references`."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        tensors = {name: tensor.detach() for name, tensor in self._tensors().items()}
        inner = {name: state.content() for name, state in self._inner().items()}
        kept = {**modules, **tensors, **inner}
        apart = self._method.rebuilt | self._method.by_reference
        return {name: value for name, value in kept.items() if name not in apart}

    def references(self) -> dict[str, Tensor]:
        """Returns the tensors of `by_reference`; those of a base method as `its name/name`."""
        tensors = self._tensors()
        own = {n: tensors[n].detach() for n in sorted(self._method.by_reference & tensors.keys())}
        for outer, state in self._inner().items():
            own |= {f"{outer}/{name}": tensor for name, tensor in state.references().items()}
        return own

    def restore_references(self, references: dict[str, Tensor]) -> None:
        """Restores the tensors that `references` returned."""
        for path, value in references.items():
            *outer, name = path.split("/")
            method = self._method
            for inner in outer:
                method = getattr(method, inner)
            setattr(method, name, value.to(getattr(method, name).device))

    def restore(self, content: dict[str, Any]) -> None:
        """Restores the state that `content` returned."""
        modules, tensors, inner = self._modules(), self._tensors(), self._inner()
        for name, value in content.items():
            if name in modules:
                modules[name].load_state_dict(value)
            elif name in inner:
                inner[name].restore(value)
            elif name in tensors and isinstance(tensors[name], nn.Parameter):
                tensors[name].data.copy_(value)
            else:
                setattr(self._method, name, value.to(tensors[name].device))
