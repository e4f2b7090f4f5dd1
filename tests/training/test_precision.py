import pytest
import torch

from kdplatform.settings.schema import TrainingConfig
from kdplatform.training.precision import autocast, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_explicit_choice_stays(precision: str, config: TrainingConfig) -> None:
    assert resolve_precision(config.model_copy(update={"precision": precision}), CPU) == precision


@pytest.mark.parametrize(
    ("capabilities", "channels_last", "expected"),
    [
        ({"avx512_bf16": True}, True, "bf16"),
        ({"amx_bf16": True}, True, "bf16"),
        ({"avx512_bf16": True}, False, "fp32"),
        ({"avx512_f": True}, True, "fp32"),
        ({}, True, "fp32"),
    ],
)
def test_auto_on_a_cpu_asks_the_hardware(
    capabilities: dict[str, bool],
    channels_last: bool,
    expected: str,
    config: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    config = config.model_copy(update={"channels_last": channels_last})
    assert resolve_precision(config, CPU) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((9, 0), "bf16")])
def test_auto_on_cuda_asks_the_capability(
    capability: tuple[int, int],
    expected: str,
    config: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision(config, torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_computes_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
