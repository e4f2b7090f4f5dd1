"""Files of tensors are read whole, and nothing in them is run."""

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.damage import Touch, with_records
from torch import nn

from kdplatform.tensor_files import UnreadableError, read_graph_weights, read_tensors


class Tied(nn.Module):
    """Weights of several kinds: tied, transposed, of other types, empty, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.same = self.first
        self.norm = nn.BatchNorm1d(3)
        self.transposed = nn.Parameter(torch.randn(3, 5).t())
        self.brain = nn.Parameter(torch.randn(3).bfloat16())
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.same(x)) + self.transposed.sum(0) + self.brain + self.empty.sum()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Tied().eval()


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of transposed weights
        torch.export.save(torch.export.export(model, (torch.randn(2, 4),)), path)
    return path


def test_an_exported_models_weights_are_its_own_bit_for_bit(
    model: nn.Module, exported: Path
) -> None:
    read, own = read_graph_weights(exported), model.state_dict()
    assert read.keys() == own.keys()
    for name, tensor in own.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor)


def test_pickles_in_an_archive_are_not_run(
    model: nn.Module, exported: Path, tmp_path: Path
) -> None:
    planted = pickle.dumps(Touch(tmp_path / "ran"))
    others = ("sample_inputs/model.pt", "constants/tensor_0", "constants/opaque_obj_0")
    path = with_records(
        exported,
        tmp_path / "planted.pt2",
        lambda name, content: planted if name.endswith(others) else content,
    )
    assert read_graph_weights(path).keys() == model.state_dict().keys()
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(exported: Path, tmp_path: Path) -> None:
    planted = pickle.dumps(Touch(tmp_path / "ran"))

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return planted if "/weights/" in name else content

    path = with_records(exported, tmp_path / "planted.pt2", change)
    with pytest.raises(UnreadableError, match="is pickled, which could run any code"):
        read_graph_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: content.replace(b'{"as_int": 4}', b'{"as_int": 4000}'),
        lambda name, content: content[:-1] if "/weights/weight_" in name else content,
        lambda name, content: b"[" * 100_000 if name.endswith(".json") else content,
    ],
    ids=["sizes beyond the bytes", "a byte is missing", "nested"],
)
def test_damaged_archives_are_refused(
    exported: Path, tmp_path: Path, change: Callable[[str, bytes], bytes]
) -> None:
    path = with_records(exported, tmp_path / "damaged.pt2", change)
    with pytest.raises(UnreadableError, match=r"^no graph as torch\.export\.save .* writes it: \S"):
        read_graph_weights(path)


def test_objects_are_refused_and_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "planted.pt"
    torch.save({"a": Touch(tmp_path / "ran")}, path)
    with pytest.raises(UnreadableError) as caught:
        read_tensors(path)
    assert str(caught.value) == (
        "it holds posix.system, which is no tensor and could run any code when it is read"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK no zip", b"", b"\0" * 100])
def test_other_files_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_tensors(io.BytesIO(content))
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 200
    assert "weights_only" not in said
