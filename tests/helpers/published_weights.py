"""Fresh weights, laid where a library keeps those that it has downloaded."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import get_weight


def put_in_hub_cache(hub: Path, repository: str, name: str) -> Path:
    """Returns where a cache of the Hugging Face hub keeps a repository's file, to be written."""
    own = hub / f"models--{repository.replace('/', '--')}"
    (own / "refs").mkdir(parents=True, exist_ok=True)
    (own / "refs" / "main").write_text("1")
    path = own / "snapshots" / "1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def publish_text_model(hub: Path, repository: str, classifier: torch.nn.Module) -> None:
    """Lays weights of a text classifier into the hub's cache, as published: without its head."""
    state = {
        name.removeprefix("network."): tensor.contiguous()
        for name, tensor in classifier.state_dict().items()
        if not re.search(r"\.(pre_)?classifier\.", name)
    }
    save_file(state, put_in_hub_cache(hub, repository, "model.safetensors"))


def publish_image_model(folder: Path, weights: str, network: torch.nn.Module) -> None:
    """Lays weights into torch's cache below `folder`, which is TORCH_HOME, under a full name."""
    path = folder / "hub" / "checkpoints" / get_weight(weights).url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
