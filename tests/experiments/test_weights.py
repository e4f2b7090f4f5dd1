"""Which of a file's tensors are the weights, and what is said of it."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers.refusals import refusal_of
from torch import Tensor, nn

from kdplatform.experiments.weights import find_weights, read_weights

PLAIN = nn.Linear(2, 3).state_dict()
MEAN = OrderedDict((name, tensor + 1) for name, tensor in PLAIN.items())
OPTIMISER = {"state": {0: {"step": torch.zeros(1)}}, "param_groups": [{"lr": 0.1}]}


def named(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def read(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    return read_weights(str(path), find_weights(str(path)), entry)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "given.pt"


def same(read: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return read.keys() == expected.keys() and all(
        torch.equal(read[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        {"state_dict": PLAIN, "epoch": 3, "optimizer": OPTIMISER},
        {"state_dict": {"model": PLAIN, "epoch": 3}},
        {"model": PLAIN, "optimizer": OPTIMISER},
        {"weights": PLAIN, "hyper_parameters": {"width": 3}},
    ],
)
def test_the_only_state_dict_is_taken_without_a_word(
    path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, path)
    assert same(read(path), PLAIN)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "averaged"),
    [
        ({"state_dict": PLAIN, "state_dict_ema": MEAN}, "state_dict_ema"),
        ({"model": PLAIN, "ema": {"module": MEAN, "updates": 5}}, "ema.module"),
        ({"model_ema": MEAN, "model": PLAIN}, "model_ema"),
        ({"state_dict": PLAIN, "callbacks": {"EMA": {"weights": MEAN}}}, "callbacks.EMA.weights"),
        (
            {"state_dict": named("net.", PLAIN) | named("ema_net.module.", MEAN)},
            "state_dict.ema_net",
        ),
        (named("model.", PLAIN) | named("model_ema.", MEAN), "model_ema"),
    ],
)
def test_of_plain_and_averaged_weights_the_plain_are_taken_and_said_and_a_field_chooses(
    path: Path, content: object, averaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, path)
    assert same(read(path), PLAIN)
    line = capsys.readouterr().err.splitlines()[0]
    assert f"is used, and not {averaged}; weights_entry chooses" in line
    assert same(read(path, averaged), MEAN)
    assert f"'other' is no state dict in weights={str(path)!r}; allowed: " in (
        said := refusal_of(read, path, "other")
    )
    assert averaged in said


def test_state_dicts_of_unknown_names_are_not_chosen_from(path: Path) -> None:
    torch.save({"first": PLAIN, "second": MEAN}, path)
    assert "allowed with weights_entry: one of first, second" in refusal_of(read, path)
    assert same(read(path, "second"), MEAN)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.net.module."]
)
def test_a_prefix_of_all_names_is_left_out_and_said(
    path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": named(prefix, PLAIN)}, path)
    assert same(read(path), PLAIN)
    [line] = capsys.readouterr().err.splitlines()
    assert f"{prefix!r}, the prefix of all names, is left out" in line


def test_a_prefix_of_some_names_is_theirs(path: Path) -> None:
    state = {"mean": torch.zeros(3), **named("model.", PLAIN)}
    torch.save(state, path)
    assert same(read(path), state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "given.safetensors"
    safetensors.save_file(PLAIN, path)
    assert same(read(path), PLAIN)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cannot be read (" in refusal_of(read, path)


def test_packed_weights_of_a_quantised_model_are_named(path: Path) -> None:
    torch.save({"scale": torch.ones(1), "packed": (torch.ones(2), None)}, path)
    assert "hold no state dict: its 'packed' is a tuple; allowed: " in refusal_of(read, path)
