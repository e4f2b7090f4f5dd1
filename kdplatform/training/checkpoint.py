"""Checkpoints: one file, used only if it is complete and belongs to this run."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from kdplatform.errors import MachineError
from kdplatform.files import written_atomically
from kdplatform.progress import say
from kdplatform.tensor_files import UnreadableError, read_tensors

# Enters every checkpoint's identity: raised when what is saved changes its meaning.
FORMAT = 1

Content = dict[str, Any]


def save_checkpoint(path: Path, identity: str, content: Content) -> None:
    """Replaces the checkpoint by tensors, numbers, strings, and lists and dicts of these.

    The file is the SHA-256 of what follows, then what `torch.save` writes: digest and content are
    renamed into place together, so no moment exists at which they disagree.

    Raises:
        MachineError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": identity, "content": content}, buffer)
    payload = buffer.getbuffer()
    try:
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
    except OSError as error:
        raise MachineError(
            f"checkpoint {str(path)!r} cannot be written ({error.strerror}); "
            "allowed: a folder this user may write, with room left"
        ) from error


def load_checkpoint(path: Path, identity: str) -> Content | None:
    """Returns the content of the checkpoint, its tensors on the CPU.

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
    return content
