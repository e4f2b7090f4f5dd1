"""Published weights: from small files in the libraries' caches, and what is said without them."""

import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers.damage import cut_short
from helpers.facts import image_facts
from huggingface_hub import constants
from safetensors.torch import save_file

from kdplatform import downloads
from kdplatform.errors import MachineError, UserError
from kdplatform.models import build_model, model_names
from kdplatform.models.densenet import _renamed
from kdplatform.models.pretrained import hub_state, pretrained, pretrained_names


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Caches of this test's own, and a hub that does not answer."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)

    def silent(*arguments: object, **settings: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", silent)
    monkeypatch.setattr(urllib.request, "urlopen", silent)


def fill_hub(folder: Path, repository: str, state: dict[str, torch.Tensor]) -> Path:
    """Writes a repository's weights as the hub's cache keeps them."""
    own = folder / "hub" / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    path = own / "snapshots" / revision / "model.safetensors"
    path.parent.mkdir(parents=True)
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text(revision)
    save_file(state, path)
    return path


def checkpoint(folder: Path, name: str) -> Path:
    path = folder / "torch" / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    return path


def test_published_weights_belong_to_architectures() -> None:
    assert set(pretrained_names()) <= set(model_names())


def test_torchvisions_file_is_taken_from_its_cache(tmp_path: Path) -> None:
    state = {"fc.bias": torch.arange(3.0)}
    torch.save(state, checkpoint(tmp_path, "resnet50-0676ba61.pth"))
    assert torch.equal(pretrained("resnet50").load()["fc.bias"], state["fc.bias"])


def test_torchvisions_old_names_are_todays() -> None:
    name = "features.denseblock1.denselayer2.norm.1.running_mean"
    assert _renamed(name) == "features.denseblock1.denselayer2.norm1.running_mean"
    with torch.device("meta"):
        own = build_model("densenet121", image_facts(3, 224, 10)).state_dict()
    assert _renamed(name) in own
    assert all(_renamed(key) == key for key in own)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "resnet18-f37072fd.pth")
    torch.save({"fc.bias": torch.arange(300.0)}, path)
    cut_short(path)
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth' cannot be read"):
        pretrained("resnet18").load()


def test_a_silent_server_is_tried_again_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MachineError, match=r"vit_b_16-c867db91\.pth cannot be downloaded"):
        pretrained("vit_b_16").load()
    assert (
        capsys.readouterr().err.count("failed (no answer: no route to host)")
        == downloads.ATTEMPTS - 1
    )


def test_a_silent_hub_is_named() -> None:
    with pytest.raises(MachineError, match=r"model\.safetensors of distilbert/distilbert-base"):
        pretrained("distilbert").load()


def test_the_hubs_file_is_taken_from_its_cache_under_todays_names(tmp_path: Path) -> None:
    state = {
        "bert.embeddings.LayerNorm.gamma": torch.ones(2),
        "bert.embeddings.LayerNorm.beta": torch.zeros(2),
        "bert.embeddings.position_ids": torch.arange(4),
        "cls.predictions.bias": torch.zeros(2),
    }
    fill_hub(tmp_path, "someone/bert", state)
    load = hub_state("someone/bert", extra="text", prefix="bert.", wrapped_as="network.")
    assert set(load()) == {
        "network.bert.embeddings.LayerNorm.weight",
        "network.bert.embeddings.LayerNorm.bias",
    }


def test_a_damaged_hub_file_is_named(tmp_path: Path) -> None:
    path = fill_hub(tmp_path, "someone/bert", {"a": torch.ones(2)})
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"model\.safetensors' cannot be read"):
        hub_state("someone/bert", extra="text")()


def test_a_name_that_no_repository_can_have() -> None:
    with pytest.raises(UserError, match="names no repository"):
        hub_state("a/b/c", extra="text")()
