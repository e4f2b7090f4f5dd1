"""Checkpoints: one file that is either whole and of this run, or not used.

Large tensors that change, such as a memory bank, lie in files of their own beside it. The
checkpoint has their digests, so that it stays small, and one that has not changed is not rewritten.
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

# Enters every checkpoint's identity: raised when what is saved changes its meaning.
FORMAT = 1

Content = dict[str, Any]


def save_checkpoint(
    path: Path, identity: str, content: Content, references: Mapping[str, Tensor] | None = None
) -> None:
    """Replaces the checkpoint by one of tensors, numbers, strings, and lists and dicts of these.

    The file is the SHA-256 of what follows, then what `torch.save` writes: digest and content are
    renamed into place together, so no moment exists at which they disagree. Files of large tensors
    are written before it, and former ones removed after it.

    Args:
        references: large tensors that get files of their own.

    Raises:
        MachineError: a file cannot be written.
    """
    try:
        digests = {}
        for name, tensor in (references or {}).items():
            # Its own numbers alone: a view would be saved with all that it is a view of.
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

    Returns None if there is no checkpoint, or only an unusable one: truncated, altered, of another
    run or another format. One line reports an unusable one. A checkpoint with objects other than
    tensors was not written here, and is set aside under another name.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    digest, payload = data[:32], data[32:]
    if hashlib.sha256(payload).digest() != digest:
        say(f"checkpoint {path} is cut short or altered: ignored, training begins anew")
        return None
    try:
        saved = read_tensors(io.BytesIO(payload))
        if not isinstance(saved, dict) or not {"format", "identity", "content"} <= saved.keys():
            raise UnreadableError("no checkpoint is in it")
    except UnreadableError as error:
        aside = path.with_name(f"{path.name}.refused")
        path.replace(aside)
        say(f"checkpoint {path} is refused ({error}): kept as {aside.name}, training begins anew")
        return None
    if saved["format"] != FORMAT or saved["identity"] != identity:
        say(f"checkpoint {path} is of another run: ignored, training begins anew")
        return None
    content: Content = saved["content"]
    content["references"] = {}
    for name, digest in saved.get("references", {}).items():
        payload = _read(_reference_path(path, str(digest)))
        if hashlib.sha256(payload).hexdigest() != digest:
            say(f"checkpoint {path}: its {name} is missing or altered, training begins anew")
            return None
        content["references"][name] = read_tensors(io.BytesIO(payload))
    return content


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint, what belongs to it, and what a killed process left of it."""
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
