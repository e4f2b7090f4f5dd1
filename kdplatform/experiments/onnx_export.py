"""A trained model as ONNX, for runtimes without torch, checked against torch's logits."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdplatform import interruption
from kdplatform.errors import MachineError, UserError, one_line
from kdplatform.predictions import Logits

FILE = "model.onnx"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_ROWS = 256
# Tolerances for float32 logits that another library computes in another order.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


@dataclass(frozen=True)
class OnnxCheck:
    """The difference between an exported model and torch's.

    Attributes:
        rows: number of examples in the check.
        largest: largest difference of a logit.
    """

    rows: int
    largest: float


def require_onnx() -> None:
    """Refuses an export whose packages are not installed.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"export='onnx' needs {', '.join(missing)}; allowed: with the extra onnx, as in "
            'pip install "kdplatform[onnx]"'
        )


def export_onnx(model: nn.Module, inputs: Tensor, path: Path) -> OnnxCheck:
    """Writes a model that takes any number of raw inputs, and compares it with torch.

    Args:
        model: on the CPU, in eval mode.
        inputs: examples for tracing and for the check. [examples, ...]

    Raises:
        UserError: the model's graph cannot be exported as ONNX.
        MachineError: its logits differ from those of torch.
    """
    chosen = inputs[:_CHECKED_ROWS].contiguous()
    try:
        with interruption.held(), _quiet():
            program = torch.onnx.export(
                model,
                (chosen[:2],),
                input_names=["inputs"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("examples")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            program.save(str(path), external_data=False)
    except Exception as error:
        raise UserError(
            f"export='onnx': the model cannot be exported ({one_line(error)}); allowed: none, or a "
            "model whose operations ONNX has"
        ) from error
    return _checked(model, chosen, path)


def _checked(model: nn.Module, inputs: Tensor, path: Path) -> OnnxCheck:
    with torch.no_grad():
        expected: Logits = model(inputs).float().numpy()
    found = onnx_logits(path, inputs)
    difference = np.abs(found - expected)
    if not np.allclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE):
        raise MachineError(
            f"export='onnx': logits of {path.name} differ from torch's by up to "
            f"{difference.max():.3g}; allowed: {_ABSOLUTE:g} and {_RELATIVE:.1%} of a logit"
        )
    return OnnxCheck(len(inputs), float(difference.max()))


def onnx_logits(path: Path, inputs: Tensor) -> Logits:
    """Returns the logits of an ONNX file. [examples, classes]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [logits] = session.run(["logits"], {"inputs": inputs.numpy()})
    return np.asarray(logits, dtype=np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps prints and warnings of the exporter out of the program's output."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
