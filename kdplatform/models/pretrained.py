"""Weights published by libraries for their architectures, and the inputs they were trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from kdplatform.downloads import SHA256, download, hub_file
from kdplatform.errors import UserError
from kdplatform.lazy import torch
from kdplatform.registry import Registry
from kdplatform.tensor_files import UnreadableError, read_safetensors, read_tensors

# Quoted, because the real type would load torch.
State: TypeAlias = "dict[str, torch.Tensor]"


@dataclass(frozen=True)
class ImageInput:
    """The images that weights were trained on.

    Attributes:
        mean: per channel, in fractions of the brightest value.
        std: likewise.
        image_size: side in pixels; None: any.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None


IMAGENET = ImageInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)


@dataclass(frozen=True)
class Pretrained:
    """Published weights of one architecture.

    Attributes:
        source: names library and version of the weights; part of a run's key.
        load: returns the state dict, with the architecture's names.
        images: what they were trained on, for architectures that take images.
        tokenizers: names of the tokenizers whose ids they take, for architectures that take texts.
        new_layers: prefixes of weights that are not published: they are drawn and trained.
    """

    source: str
    load: Callable[[], State]
    images: ImageInput | None = None
    tokenizers: tuple[str, ...] = ()
    new_layers: tuple[str, ...] = ()


_pretrained: Registry[Pretrained] = Registry(
    "model", "kdplatform.models", "register_pretrained", "register_torchvision"
)
# The architectures with published weights, and a function for the weights of each.
pretrained_names, pretrained = _pretrained.names, _pretrained.get


def register_pretrained(name: str, *, weights: Pretrained) -> None:
    """Declares the weights that the library publishes for an architecture."""
    _pretrained.register(name)(weights)


def register_torchvision(
    name: str, *, weights: str, renamed: Callable[[str], str] = lambda name: name
) -> None:
    """Declares which of torchvision's ImageNet weights belong to an architecture.

    Args:
        weights: their full name, such as `ResNet50_Weights.IMAGENET1K_V1`.
        renamed: maps a weight's name in the published file to its name in the architecture.
    """

    def load() -> State:
        from torchvision.models import get_weight

        state = _torch_hub_state(str(get_weight(weights).url))
        return {renamed(name): tensor for name, tensor in state.items()}

    published = Pretrained(f"torchvision {weights}", load, images=IMAGENET)
    register_pretrained(name, weights=published)


def hub_state(
    repository: str, *, extra: str, prefix: str = "", wrapped_as: str = ""
) -> Callable[[], State]:
    """Returns a function that loads a repository's weights from the Hugging Face hub's cache.

    They are downloaded if they are missing.

    Args:
        extra: the extra of this package that installs the hub's client.
        prefix: of the wanted weights; all others are ignored.
        wrapped_as: prefix for the names, for architectures that contain the library's.
    """

    def load() -> State:
        needed_by = f"pretrained=true ({repository})"
        path = hub_file(repository, "model.safetensors", needed_by=needed_by, extra=extra)
        try:
            state = read_safetensors(path, needed_by=needed_by, extra=extra)
        except UnreadableError as error:
            raise _damaged(path, error) from None
        return {
            wrapped_as + _modern(name): tensor
            for name, tensor in state.items()
            if name.startswith(prefix) and not name.endswith("position_ids")
        }

    return load


def _modern(name: str) -> str:
    """Returns the present name of a layer normalisation's weights."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _torch_hub_state(url: str) -> State:
    """Returns the weights at a URL, from torch's hub cache or downloaded into it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        # The file name ends in the first digits of the content's SHA-256.
        download(url, path, path.stem.rpartition("-")[2], SHA256, elsewhere="")
    try:
        state: State = read_tensors(path)
    except UnreadableError as error:
        raise _damaged(path, error) from None
    return state


def _damaged(path: Path, error: UnreadableError) -> UserError:
    return UserError(
        f"weights {str(path)!r} cannot be read ({error}); allowed: a whole "
        "file, which a download writes anew when this one is deleted"
    )
