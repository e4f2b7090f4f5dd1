"""Every shipped project trains for one epoch on small data of its true format.

Nothing but the number of epochs and where the data lie is set, except for what `CUT` names. Weights
that publishers offer are fresh ones, laid where a download would lay them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torchvision
from helpers.dataset_files import (
    IMAGENET_CODES,
    people,
    write_celeba,
    write_cifar,
    write_image_folder,
    write_imagenet,
    write_svhn,
    write_tiny_imagenet,
    write_waterbirds,
)
from helpers.hatexplain_files import post, write_posts
from helpers.movielens_files import write_100k, zipf_ratings
from helpers.place import Place, spare_figures_and_graphs
from helpers.published_weights import (
    publish_image_model,
    publish_text_model,
    put_in_hub_cache,
)
from huggingface_hub import constants
from torch import nn
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.models import DenseNet, ResNet, VisionTransformer, _api
from torchvision.models.resnet import BasicBlock, Bottleneck

from kdplatform import cli
from kdplatform.data import DataFacts, load_dataset
from kdplatform.data._tokens import trained_tokenizer
from kdplatform.models import bert, build_model
from kdplatform.roles import Role
from kdplatform.settings.project import load_project, project_names

Patch = pytest.MonkeyPatch
Fields = dict[str, str]
# Of equal layers one is left, as of a transformer's twelve below: models have tests of their own.
SHALLOW: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, BasicBlock, [1, 1, 1, 1]),
    "resnet50": partial(ResNet, Bottleneck, [1, 1, 1, 1]),
    "densenet121": partial(DenseNet, 32, (1, 1, 1, 1), 64),
    "densenet169": partial(DenseNet, 32, (1, 1, 1, 1), 64),
}
# Of a transformer's twelve equal layers one is left; its published weights cannot be had here, and
# fresh ones of the whole are 330 MB (ViT-B/16) and 440 MB (BERT-Base).
FEW_LAYERS = {"bert_base": {"num_hidden_layers": 1}, "distilbert": {"n_layers": 1}}


def cifar(published: Any, classes: int) -> Callable[[Path, Patch], Fields]:
    def write(root: Path, patch: Patch) -> Fields:
        write_cifar(root, published, patch, classes, per_file=20)
        return {"dataset.root": str(root)}

    return write


def svhn(root: Path, patch: Patch) -> Fields:
    write_svhn(root, patch)
    return {"dataset.root": str(root)}


def tiny_imagenet(root: Path, patch: Patch) -> Fields:
    return {"dataset.root": str(write_tiny_imagenet(root).parent)}


def celeba(root: Path, patch: Patch) -> Fields:
    return {"dataset.root": str(write_celeba(root))}


def image_folder(root: Path, patch: Patch) -> Fields:
    return {"dataset.root": str(write_image_folder(root))}


def table(root: Path, patch: Patch) -> Fields:
    root.mkdir()
    people().to_csv(root / "people.csv", index=False)
    return {"dataset.file": str(root / "people.csv"), "dataset.label": "income"}


def ratings(root: Path, patch: Patch) -> Fields:
    return {"dataset.root": str(write_100k(root, zipf_ratings()))}


def shallow(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda weights=None, **arguments: kind(**arguments)


def nothing(root: Path, patch: Patch) -> Fields:
    return {}


def one_layer_vit(weights: None, **arguments: Any) -> VisionTransformer:
    sizes = {"patch_size": 16, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    return VisionTransformer(num_layers=1, **sizes, **arguments)


def imagenet(teacher: str, weights: str) -> Callable[[Path, Patch], Fields]:
    def write(root: Path, patch: Patch) -> Fields:
        patch.setenv("TORCH_HOME", str(root / "torch"))
        patch.setattr(torchvision.models, "vit_b_16", one_layer_vit)
        seen = DataFacts((3, 224, 224), tuple(IMAGENET_CODES))
        publish_image_model(root / "torch", weights, build_model(teacher, seen))
        return {"dataset.root": str(write_imagenet(root / "images"))}

    return write


def waterbirds(root: Path, patch: Patch) -> Fields:
    patch.setenv("TORCH_HOME", str(root / "torch"))
    seen = DataFacts((3, 72, 72), ("landbird", "waterbird"))
    for model in ("resnet50", "resnet18"):
        name = f"{model.replace('resnet', 'ResNet')}_Weights.IMAGENET1K_V1"
        publish_image_model(root / "torch", name, build_model(model, seen))
    return {"dataset.root": str(write_waterbirds(root / "images"))}


def posts(root: Path, patch: Patch) -> Fields:
    """Writes posts of both labels about every community that the projects compare."""
    targets = (["None"], ["Men"], ["Women"], ["African"], ["Arab"], ["Asian"], ["Caucasian"])
    targets += (["Hispanic"],)
    written, divisions = {}, {}
    for split, rounds in (("train", 2), ("val", 1), ("test", 1)):
        divisions[split] = [f"{split}{number}" for number in range(rounds * 2 * len(targets))]
        for number, name in enumerate(divisions[split]):
            label = ("normal", "hatespeech")[number % 2]
            words = ["kind" if label == "normal" else "rude", "words", str(number)]
            target = targets[number // 2 % len(targets)]
            written[name] = post(name, [label] * 3, [target] * 3, words)
    root.mkdir()
    return {"dataset.root": str(write_posts(root, written, divisions))}


def posts_and_weights(root: Path, patch: Patch) -> Fields:
    fields, hub = posts(root, patch), root / "hub"
    patch.setattr(constants, "HF_HUB_CACHE", str(hub))
    for name, (classes, sizes) in list(bert.KINDS.items()):
        patch.setitem(bert.KINDS, name, (classes, {**sizes, **FEW_LAYERS.get(name, {})}))
    trained_tokenizer(["kind words", "rude words"], 100, root / "tokenizer")
    (vocabulary,) = (root / "tokenizer").glob("vocabulary-*.json")
    path = put_in_hub_cache(hub, "bert-base-uncased", "tokenizer.json")
    path.write_text(vocabulary.read_text())
    facts = load_dataset(load_project("hatexplain", fields).dataset, root / "data").facts()
    publish_text_model(hub, "google-bert/bert-base-uncased", build_model("bert_base", facts))
    publish_text_model(hub, "distilbert/distilbert-base-uncased", build_model("distilbert", facts))
    return fields


DATA: dict[str, Callable[[Path, Patch], Fields]] = {
    "celeba": celeba,
    "celeba_male": celeba,
    "cifar10": cifar(CIFAR10, 10),
    "cifar100": cifar(CIFAR100, 100),
    "cifar100_densenet": cifar(CIFAR100, 100),
    "digits": nothing,
    "hatexplain": posts_and_weights,
    "hatexplain_race": posts_and_weights,
    "hatexplain_small": posts,
    "imagefolder": image_folder,
    "imagenet": imagenet("resnet50", "ResNet50_Weights.IMAGENET1K_V1"),
    "imagenet_vit": imagenet("vit_b_16", "ViT_B_16_Weights.IMAGENET1K_V1"),
    "movielens": ratings,
    "svhn": svhn,
    "table": table,
    "tiny_imagenet": tiny_imagenet,
    "trifeature": nothing,
    "waterbirds": waterbirds,
}
# What else is set, and why: on the way from data to metrics nothing depends on it.
CUT: dict[str, Fields] = {
    # A thousand combinations in seven versions are drawn for a minute.
    "trifeature": {"dataset.values_per_feature": "3"},
    # A third of the work or less; above 64 pixels ResNets keep the layers of their weights.
    "celeba": {"dataset.image_size": "72"},
    "celeba_male": {"dataset.image_size": "72"},
    "waterbirds": {"dataset.image_size": "72", "dataset.resize": "80"},
    "imagenet": {
        "dataset.image_size": "72",
        "dataset.resize": "80",
        "teacher.image_size": "72",
    },
}
# A graph takes more time than everything else of a run; it has tests of its own.
WITH_GRAPH = "table"


@pytest.mark.parametrize("name", project_names())
@pytest.mark.usefixtures("one_thread")
def test_a_project_runs_with_one_epoch(name: str, new_place: Place, monkeypatch: Patch) -> None:
    for model, kind in SHALLOW.items():
        monkeypatch.setitem(_api.BUILTIN_MODELS, model, shallow(kind))
    if name != WITH_GRAPH:
        spare_figures_and_graphs(monkeypatch)
    assert name in DATA, f"no data for project {name}: name a maker of small data for it in DATA"
    fields = DATA[name](new_place.folder / "root", monkeypatch) | CUT.get(name, {})
    fields["student.epochs"] = "1"
    if not load_project(name).teacher.frozen:
        fields["teacher.epochs"] = "1"
    words = [word for field, value in fields.items() for word in (f"--{field}", value)]
    assert cli.main(["distill", "--project", name, *words]) == 0
    roles = [run.data.tags["kd.role"] for run in new_place.runs(status="FINISHED")]
    assert roles == list(Role)
