"""Checkpoints: a file is used only if it is complete and belongs to this run.

Large tensors that change, such as a memory bank, are in separate files beside it. The checkpoint
has only their digests, so it stays small, and an unchanged tensor is not rewritten.
"""

import glob
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdplatform.errors import MachineError
from kdplatform.files import remove_left_overs, written_atomically
from kdplatform.progress import say
from kdplatform.tensor_files import UnreadableError, read_tensors

# Part of every checkpoint's identity. Raise it if the meaning of the saved content changes.
FORMAT = 1

Content = dict[str, Any]


def save_checkpoint(
    path: Path, identity: str, content: Content, references: Mapping[str, Tensor] | None = None
) -> None:
    """Replaces the checkpoint, whose content is tensors, numbers, strings, lists and dicts.

    The file starts with the SHA-256 of the rest, which `torch.save` writes. Digest and content are
    renamed into place together, so they never disagree. Files of large tensors are written before
    the checkpoint, and former ones are removed after it.

    Args:
        references: large tensors that are written to separate files.

    Raises:
        MachineError: a file cannot be written.
    """
    try:
        digests = {}
        for name, tensor in (references or {}).items():
            # Copied, because a view would be saved with its whole base tensor.
            payload = _saved(tensor.detach().cpu().clone())
            digests[name] = hashlib.sha256(payload).hexdigest()
            own = _reference_path(path, digests[name])
            if not own.exists():
                with written_atomically(own) as temporary:
                    temporary.write_bytes(payload)
        saved = {"format": FORMAT, "identity": identity, "content": content, "references": digests}
        payload = _saved(saved)
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
        _remove_references(path, but=digests)
    except OSError as error:
        raise MachineError(
            f"checkpoint {str(path)!r} cannot be written ({error.strerror}); "
            "allowed: a folder this user may write, with room left"
        ) from error


def load_checkpoint(path: Path, identity: str) -> Content | None:
    """Returns the content of the checkpoint, its tensors on the CPU, with those of `references`.

    Returns None if there is no checkpoint, or if it is unusable: truncated, altered, of another run
    or of another format. One line reports an unusable checkpoint. A checkpoint with objects other
    than tensors was not written by this package, and is set aside under another name.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    digest, payload = data[:32], data[32:]
    if hashlib.sha256(payload).digest() != digest:
        say(f"checkpoint {path} is cut short or altered: ignored, training starts again")
        return None
    try:
        saved = read_tensors(io.BytesIO(payload))
        if not isinstance(saved, dict) or not {"format", "identity", "content"} <= saved.keys():
            raise UnreadableError("no checkpoint is in it")
    except UnreadableError as error:
        aside = path.with_name(f"{path.name}.refused")
        path.replace(aside)
        say(f"checkpoint {path} is refused ({error}): kept as {aside.name}, training starts again")
        return None
    if saved["format"] != FORMAT or saved["identity"] != identity:
        say(f"checkpoint {path} is of another run: ignored, training starts again")
        return None
    content: Content = saved["content"]
    content["references"] = {}
    for name, digest in saved.get("references", {}).items():
        payload = _read(_reference_path(path, str(digest)))
        if hashlib.sha256(payload).hexdigest() != digest:
            say(f"checkpoint {path}: its {name} is missing or altered, training starts again")
            return None
        content["references"][name] = read_tensors(io.BytesIO(payload))
    return content


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint with all its files, and the files that a killed process left."""
    path.unlink(missing_ok=True)
    _remove_references(path)
    remove_left_overs(path)


def _saved(content: object) -> memoryview:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _reference_path(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.name}.{digest[:32]}.part")


def _remove_references(path: Path, but: Mapping[str, str] | None = None) -> None:
    kept = {_reference_path(path, digest) for digest in (but or {}).values()}
    for own in set(path.parent.glob(f"{glob.escape(path.name)}.*.part")) - kept:
        own.unlink(missing_ok=True)
