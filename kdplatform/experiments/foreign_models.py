"""MLflow models of any library: run through pyfunc, unpickled only if they are trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models.model import MLMODEL_FILE_NAME
from numpy.typing import NDArray

from kdplatform.data import Inputs, StreamedInputs
from kdplatform.errors import UserError, one_line
from kdplatform.progress import progress_bar, say
from kdplatform.settings.yaml_files import read_mapping

# The readers of these models build a graph from plain values, and run no code of the file.
SAFE_LOADERS = ("mlflow.onnx",)
_BATCH = 256
# A probability of exactly 0 has no logarithm.
_LEAST_PROBABILITY = 1e-30


class ForeignModel:
    """An MLflow model that this platform did not train.

    Args:
        name: its name as the user gave it.
        folder: the folder with its `MLmodel`.
        trusted: whether the user allows code of the model to run when it is read.

    Raises:
        UserError: it has no pyfunc flavour, would be unpickled without trust, takes columns by
            name, or its library is not installed.
    """

    def __init__(self, name: str, folder: Path, *, trusted: bool) -> None:
        self._name = name
        description = read_mapping("model", folder / MLMODEL_FILE_NAME)
        flavours = description.get("flavors")
        flavours = flavours if isinstance(flavours, dict) else {}
        pyfunc = flavours.get("python_function")
        if not isinstance(pyfunc, dict):
            raise UserError(
                f"model={name!r} has the flavours {', '.join(flavours) or 'none'}; allowed: a "
                "model with the flavour python_function"
            )
        _check_trust(name, flavours, pyfunc, trusted)
        try:
            self._model: Any = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
        except Exception as error:
            raise UserError(
                f"model={name!r} cannot be loaded ({type(error).__name__}: {one_line(error)}); "
                "allowed: a model whose libraries are installed here"
            ) from None
        signature = self._model.metadata.signature
        self._inputs = None if signature is None else signature.inputs
        if self._inputs is not None and not self._inputs.is_tensor_spec():
            raise UserError(
                f"model={name!r} takes columns by name; allowed: a model that takes the dataset's "
                "raw inputs as one array"
            )

    def predict(self, inputs: Inputs) -> NDArray[np.generic]:
        """Returns the model's output for raw inputs: [N, C], or one class each [N].

        Raises:
            UserError: it takes other inputs, or returns something else.
        """
        self._check_inputs(inputs)
        parts = []
        rows = torch.split(torch.arange(len(inputs)), _BATCH)
        stream = (
            inputs.batches(rows)
            if isinstance(inputs, StreamedInputs)
            else map(inputs.__getitem__, rows)
        )
        with progress_bar(len(inputs), "predicting", "examples") as bar:
            for batch in stream:
                try:
                    said = self._model.predict(batch.numpy())
                except Exception as error:
                    raise UserError(
                        f"model={self._name!r} fails on {batch.dtype} inputs of shape "
                        f"{tuple(batch.shape)} ({type(error).__name__}: {one_line(error)}); "
                        "allowed: a model that takes the dataset's raw inputs"
                    ) from None
                parts.append(self._array(said, len(batch)))
                bar.update(len(batch))
        return np.concatenate(parts)

    def _check_inputs(self, inputs: Inputs) -> None:
        """Refuses inputs of another type or shape than the model's signature."""
        if self._inputs is None:
            return
        kind = str(inputs[:1].numpy().dtype)
        own = tuple(inputs.shape[1:])
        [spec, *others] = self._inputs.inputs
        shape = tuple(spec.shape[1:])
        same = len(shape) == len(own) and all(a in (-1, b) for a, b in zip(shape, own, strict=True))
        if others or spec.type != np.dtype(kind) or not same:
            raise UserError(
                f"model={self._name!r} takes {spec.type} of shape {tuple(spec.shape)}, the "
                f"dataset's raw inputs are {kind} of shape {(-1, *own)}; allowed: a model that "
                "takes raw inputs"
            )

    def _array(self, said: Any, rows: int) -> NDArray[np.generic]:
        if isinstance(said, Mapping) and len(said) == 1:
            [said] = said.values()
        if isinstance(said, pd.DataFrame | pd.Series):
            said = said.to_numpy()
        if isinstance(said, torch.Tensor):
            said = said.detach().cpu().numpy()
        array = np.asarray(said)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim not in (1, 2) or len(array) != rows:
            raise UserError(
                f"model={self._name!r} says {type(said).__name__} of shape {array.shape} about "
                f"{rows} examples; allowed: one number per example and class, or one class each"
            )
        return array


def _check_trust(
    name: str, flavours: Mapping[str, Any], pyfunc: Mapping[str, Any], trusted: bool
) -> None:
    loader = pyfunc.get("loader_module")
    if trusted or (loader in SAFE_LOADERS and not pyfunc.get("code")):
        return
    others = ", ".join(flavour for flavour in flavours if flavour != "python_function")
    brings = "brings code of its own" if pyfunc.get("code") else "is unpickled when it is read"
    raise UserError(
        f"model={name!r} (flavour {others or loader}) {brings}: whatever its maker put in then runs"
        " here, with all your rights; allowed: trust_model=true if you know who made it, or a "
        "model in ONNX, or one that this platform trained"
    )


def as_logits(said: NDArray[np.generic], class_names: tuple[str, ...], name: str) -> Any:
    """Returns a model's output as logits float32 [N, C], or as class numbers int64 [N].

    Probabilities are replaced by their logarithms, and a line says so.

    Raises:
        UserError: it has other classes, or is not finite.
    """
    if said.ndim == 1:
        return _classes(said, class_names, name)
    if said.shape[1] != len(class_names) or not np.issubdtype(said.dtype, np.number):
        raise UserError(
            f"model={name!r} says {said.shape[1]} values of {said.dtype} per example, the dataset "
            f"has {len(class_names)} classes; allowed: one number per class"
        )
    logits = said.astype(np.float32)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise UserError(
            f"model={name!r}: logits of {int((~finite).sum())} of {len(logits)} examples are NaN or"
            " infinite; allowed: finite numbers"
        )
    return logits


def logs_of_probabilities(probabilities: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Returns the logarithms of probabilities, which are logits; says so."""
    say(f"{name}: its outputs are probabilities; their logarithms are used as logits")
    logs: NDArray[np.float32] = np.log(probabilities.clip(min=_LEAST_PROBABILITY))
    return logs


def _classes(
    said: NDArray[np.generic], class_names: tuple[str, ...], name: str
) -> NDArray[np.int64]:
    numbers = {own: number for number, own in enumerate(class_names)}
    if not np.issubdtype(said.dtype, np.number):
        unknown = sorted({str(value) for value in said} - set(numbers))
        if unknown:
            raise UserError(
                f"model={name!r} says class {unknown[0]!r}, one of {len(unknown)} that the dataset "
                f"lacks; allowed: {', '.join(class_names)}"
            )
        return np.array([numbers[str(value)] for value in said], dtype=np.int64)
    whole = said.astype(np.int64)
    if (whole != said).any() or whole.min() < 0 or whole.max() >= len(class_names):
        wrong = said[(whole != said) | (whole < 0) | (whole >= len(class_names))][0]
        raise UserError(
            f"model={name!r} says class {wrong}; allowed: whole numbers from 0 to "
            f"{len(class_names) - 1}, names of classes, or one number per class"
        )
    return whole
