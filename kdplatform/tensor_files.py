"""Reads files of tensors, of any origin, without running their content."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kdplatform.errors import one_line
from kdplatform.lazy import torch
from kdplatform.registry import optional_module

# The types of numbers, by their index in torch.export.
_TYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64"},
    **{6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"},
}
_WEIGHTS_TABLE = "/data/weights/model_weights_config.json"
_OBJECT = re.compile(r"GLOBAL (\S+)")


class UnreadableError(ValueError):
    """A file of tensors cannot be read. The message is one line with the reason."""


def read_tensors(file: Path | IO[bytes]) -> Any:
    """Returns the content of a `torch.save` file: tensors, numbers, strings, lists and dicts.

    Raises:
        UnreadableError: the file is damaged, or holds other objects.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensor types that torch will stop reading
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UnreadableError(_reason(error)) from None


def read_graph_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of an exported graph (.pt2) by their names.

    They are read as plain bytes, because `torch.export.load` would unpickle other entries.

    Raises:
        UnreadableError: the archive is damaged, or of a layout older than torch 2.10's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [table] = (name for name in archive.namelist() if name.endswith(_WEIGHTS_TABLE))
            folder = table.rpartition("/")[0]
            weights = json.loads(archive.read(table))["config"]
            return {name: _tensor(archive, folder, name, entry) for name, entry in weights.items()}
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(
            f"no graph as torch.export.save of torch 2.10 or newer writes it: {one_line(error)}"
        ) from None


def read_safetensors(path: Path, *, needed_by: str, extra: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of a `.safetensors` file by their names. It holds nothing else.

    Args:
        needed_by: the parameter that needs it, with its value.
        extra: the extra of this package that installs the library.

    Raises:
        UnreadableError: the file is damaged.
        UserError: the library is not installed.
    """
    library = optional_module("safetensors.torch", needed_by=needed_by, extra=extra)
    try:
        state: dict[str, torch.Tensor] = library.load_file(path)
    except Exception as error:
        raise UnreadableError(one_line(error)) from None
    return state


def _tensor(
    archive: zipfile.ZipFile, folder: str, name: str, entry: Mapping[str, Any]
) -> torch.Tensor:
    if entry["use_pickle"]:
        raise UnreadableError(f"{name} is pickled, which could run any code when it is read")
    meta = entry["tensor_meta"]
    dtype = getattr(torch, _TYPES[meta["dtype"]])
    content = bytearray(archive.read(f"{folder}/{entry['path_name']}"))
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    sizes, strides = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
    return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])


def _reason(error: Exception) -> str:
    """Shortens torch's page-long message, which also advises to read the file unsafely."""
    text = str(error)
    if found := _OBJECT.search(text):
        return f"it holds {found[1]}, which is no tensor and could run any code when it is read"
    if "Weights only load failed" in text:
        return "it is no file that torch.save wrote"
    return one_line(error)
