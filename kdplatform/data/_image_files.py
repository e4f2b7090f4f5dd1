"""Datasets of image files: decoded once and kept in memory, or streamed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from kdplatform.data import Inputs, StreamedInputs
from kdplatform.data._decoding import IMAGE_SUFFIXES
from kdplatform.data._streams import StreamLoader
from kdplatform.errors import KdplatformError, MachineError, UserError
from kdplatform.files import load_arrays, locked, remove_left_overs, save_arrays, writable_folder
from kdplatform.lazy import torch
from kdplatform.progress import progress_bar
from kdplatform.settings.schema import DatasetConfig, Optional

# Raised whenever equal files would give other pixels; part of every digest. An older version
# inverted grey TIFF files of 16 bits in which white is 0.
DECODER_VERSION = 2
_TIFF_VERSION = "tiff 1"
# The most that `storage: auto` holds in memory. It is a constant, not this machine's free memory:
# the choice must not depend on the machine.
MOST_BYTES_IN_MEMORY = 2 * 2**30
# Up to this size every file's content enters the digest; above it that of a thousand files.
MOST_BYTES_HASHED = 2**30
_SAMPLED_FILES = 1000
# Channel statistics are those of this many training images, whether in memory or streamed.
MEASURED_IMAGES = 2048
_CHUNK = 64


ImageSize = Annotated[int, Field(ge=8, le=1024, description="side of an example in pixels")]
Resize = Annotated[
    Annotated[int, Field(ge=8, le=2048)] | None,
    Optional,
    Field(description="shorter side before the centre is cut out; none: image_size"),
]


class ImageFilesConfig(DatasetConfig):
    """The place of images, and how they become examples."""

    root: str = Field("", description="folder of the images")
    image_size: ImageSize = 64
    resize: Resize = None
    storage: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="memory: decode the images once and hold them; stream: decode them for every "
        "batch; auto: memory up to 2 GiB decoded, else stream",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto", description="processes that decode ahead; auto: one per thread, at most 8"
    )

    @model_validator(mode="after")
    def _centre_fits(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize={self.resize} is not allowed; allowed: none, or at least "
                f"image_size={self.image_size}"
            )
        return self


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder is hidden, or macOS's copy of what a file is."""
    return name.startswith(".") or name == "__MACOSX"


def inside(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of folders and of files in a folder, sorted, hidden ones left out.

    Raises:
        UserError: the folder may not be read, or holds a link that leads nowhere.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    except OSError as error:
        raise _unreadable(error) from None
    for name in names:
        path = folder / name
        if not path.exists():
            raise UserError(
                f"{str(path)!r} is a link to {os.readlink(path)!r}, which does not exist; "
                "allowed: links to existing files"
            )
        (folders if path.is_dir() else files).append(name)
    return folders, files


def files_below(
    folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> tuple[list[str], Counter[str]]:
    """Returns the files below a folder, sorted, and how many were left out, by their suffixes.

    Hidden files and folders are ignored, except hidden images. Paths are relative, with forward
    slashes. Linked folders are followed, unless they lead to a folder that contains them.

    Raises:
        UserError: a folder may not be read.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    for current, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        own = Path(current)
        endless = [name for name in folders if _leads_up(own / name)]
        others["endless links"] += len(endless)
        folders[:] = sorted(n for n in folders if not is_hidden(n) and n not in endless)
        for name in names:
            image = name.lower().endswith(tuple(suffixes))
            if image and not is_hidden(name):
                found.append((own.relative_to(folder) / name).as_posix())
            elif image and not name.startswith("._"):
                others["hidden images"] += 1
            elif not is_hidden(name):
                others[Path(name).suffix.lower() or "without a suffix"] += 1
    return sorted(found), +others


def _refuse(error: OSError) -> None:
    # A folder that is not there has no files.
    if not isinstance(error, FileNotFoundError):
        raise _unreadable(error)


def _unreadable(error: OSError) -> UserError:
    return UserError(
        f"{error.filename!r} cannot be read ({error.strerror}); allowed: folders this user may read"
    )


def _leads_up(path: Path) -> bool:
    """Tells whether a folder is a link to a folder that contains it, on any path."""
    return path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}


def files_digest(root: Path, files: Sequence[str]) -> str:
    """Returns the SHA-256 of names, sizes and contents of files; see `hashed_files`."""
    return hashed_files(root, files)[0]


def hashed_files(root: Path, files: Sequence[str]) -> tuple[str, list[bytes]]:
    """Returns the SHA-256 of names, sizes and contents of files in their order, and of each one.

    Above 1 GiB in all, the contents are those of a thousand files, evenly spread over the list, and
    the second is empty.

    Raises:
        UserError: a file is not there or cannot be read.
    """
    try:
        sizes = [(root / file).stat().st_size for file in files]
        digest = hashlib.sha256()
        for file, size in zip(files, sizes, strict=True):
            digest.update(f"{file}\0{size}\0".encode(errors="surrogateescape"))
        whole = sum(sizes) <= MOST_BYTES_HASHED
        rows = range(len(files))
        if not whole:
            spread = np.linspace(0, len(files) - 1, min(len(files), _SAMPLED_FILES))
            rows = spread.astype(int).tolist()
        contents = []
        with progress_bar(len(rows), "reading", "files") as bar:
            for row in rows:
                contents.append(hashlib.sha256((root / files[row]).read_bytes()).digest())
                digest.update(contents[-1])
                bar.update()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename!r} is missing") from None
    except OSError as error:
        raise UserError(f"{error.filename!r} cannot be read ({error.strerror})") from None
    return digest.hexdigest(), contents if whole else []


def streamed(config: ImageFilesConfig, root: Path, files: Sequence[str]) -> StreamedInputs:
    """Returns the files as inputs that are decoded for every batch."""
    return StreamedInputs(
        root,
        files,
        size=config.image_size,
        resize=config.resize,
        workers=None if config.workers == "auto" else config.workers,
    )


def in_memory(config: ImageFilesConfig, count: int) -> bool:
    """Tells whether so many images are to be held in memory."""
    if config.storage == "auto":
        return count * 3 * config.image_size**2 <= MOST_BYTES_IN_MEMORY
    return config.storage == "memory"


def pixels_digest(config: ImageFilesConfig, source_digest: str, files: Sequence[str]) -> str:
    """Returns the digest of decoded images: of their files, and of how they are decoded."""
    size = f"{config.image_size}/{config.resize}/{DECODER_VERSION}"
    if any(file.lower().endswith((".tif", ".tiff")) for file in files):
        size += f"/{_TIFF_VERSION}"
    return hashlib.sha256(f"{source_digest}/{size}".encode()).hexdigest()


def decoded_once(
    config: ImageFilesConfig, images: StreamedInputs, digest: str, folder: Path, *, pixels: bool
) -> tuple[torch.Tensor | None, dict[int, str]]:
    """Decodes all images, or takes them from the cache of an earlier time.

    Args:
        digest: of the pixels; the cache's name below `folder`.
        pixels: whether the images are wanted, or only which of them decode.

    Returns:
        The images, uint8 [N, 3, size, size], zeros where one does not decode; and why not, by row.

    Raises:
        MachineError: the cache cannot be written.
    """
    own = writable_folder("data_folder", folder / config.name / digest[:16])
    path = own / ("images.npz" if pixels else "checked.npz")
    with locked(own / "lock", f"waiting for another process that decodes the same images ({own})"):
        cached = load_arrays(path)
        if cached is None:
            remove_left_overs(path)
            cached = _decode(images, pixels)
            try:
                save_arrays(path, cached)
            except OSError as error:
                raise MachineError(
                    f"data_folder={str(folder)!r} cannot hold the decoded images of {config.name} "
                    f"({error.strerror or error}); allowed: a folder with free space, or "
                    "dataset.storage=stream"
                ) from error
    reasons = dict(zip(cached["bad"].tolist(), cached["reasons"].tolist(), strict=True))
    return (torch.from_numpy(cached["images"]) if pixels else None), reasons


def _decode(images: StreamedInputs, pixels: bool) -> dict[str, NDArray[np.generic]]:
    decoded = np.zeros(tuple(images.shape) if pixels else (0,), dtype=np.uint8)
    bad: dict[int, str] = {}
    steps = torch.split(torch.arange(len(images)), _CHUNK)
    attempts = StreamLoader(images, pinned=False).attempts(steps)
    with progress_bar(len(images), "decoding", "images") as bar:
        for rows, result in zip(steps, attempts, strict=True):
            own = (
                # One of them does not decode: which?
                [_image_or_error(images, row) for row in rows.tolist()]
                if isinstance(result, KdplatformError)
                else result
            )
            for row, image in zip(rows.tolist(), own, strict=True):
                if isinstance(image, KdplatformError):
                    bad[row] = str(image)
                elif pixels:
                    decoded[row] = image.numpy()
            bar.update(len(rows))
    return {
        "images": decoded,
        "bad": np.array(list(bad), dtype=np.int64),
        "reasons": np.array(list(bad.values()), dtype=np.str_),
    }


def _image_or_error(images: StreamedInputs, row: int) -> torch.Tensor | KdplatformError:
    try:
        return images.decode(row)
    except KdplatformError as error:
        return error


def refuse_bad(bad: Mapping[int, str], allowed: str) -> None:
    """Refuses images that do not decode.

    Raises:
        UserError: there are any; says how many, and the first.
    """
    if bad:
        first = bad[min(bad)]
        rest = f", the first of {len(bad)} such images" if len(bad) > 1 else ""
        raise UserError(f"{first}{rest}; allowed: {allowed}")


def image_inputs(
    config: ImageFilesConfig, root: Path, files: Sequence[str], source_digest: str, folder: Path
) -> Inputs:
    """Returns the images of files: decoded in memory, or a stream.

    Raises:
        UserError: images are to be held in memory, and one does not decode.
        MachineError: the cache of decoded images cannot be written.
    """
    images = streamed(config, root, files)
    if not in_memory(config, len(files)):
        return images
    digest = pixels_digest(config, source_digest, files)
    pixels, bad = decoded_once(config, images, digest, folder, pixels=True)
    refuse_bad(bad, "whole image files")
    assert pixels is not None
    return pixels
