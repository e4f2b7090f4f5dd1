"""Where a dataset's files come from: the user's folder, or a published archive."""

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdplatform.downloads import check_published, download, md5_of
from kdplatform.errors import UserError
from kdplatform.files import locked, not_there, user_path
from kdplatform.progress import progress_bar


def given_root(root: str, holding: str, wanted: Sequence[str] = ()) -> Path:
    """Returns the folder the user named.

    Args:
        root: as the user wrote it.
        holding: what it is to hold, for the message.
        wanted: files and folders that must be in it.

    Raises:
        UserError: no folder is named, or it is missing, cannot be listed, or lacks something.
    """
    if not root:
        raise UserError(f"dataset.root is not given; allowed: a folder with {holding}")
    folder = user_path("dataset.root", root)
    if not folder.is_dir():
        raise not_there("dataset.root", root, folder, f"one with {holding}", kind="folder")
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise UserError(
            f"dataset.root={root!r} cannot be read ({error.strerror}); allowed: a folder this user "
            "may read"
        ) from None
    if absent := [name for name in wanted if not (folder / name).exists()]:
        raise UserError(
            f"dataset.root={root!r} lacks {', '.join(absent)}; allowed: a folder with {holding}"
        )
    return folder


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        folder: the one folder that everything in it lies in.
    """

    url: str
    name: str
    md5: str
    folder: str


def given_archive(archive: Archive, root: str) -> Path:
    """Returns what the user's folder has of an archive: the archive itself, or its content.

    Of the latter, the folder in which the archive's own folder lies.

    Raises:
        UserError: the user's folder is not there, or has neither.
    """
    holding = (
        f"{archive.folder}/ or {archive.name} (from {archive.url}); without dataset.root it is "
        "downloaded"
    )
    given = given_root(root, holding)
    if given.name == archive.folder and given.is_dir():
        return given.parent
    if (given / archive.folder).is_dir():
        return given
    if (given / archive.name).is_file():
        return given / archive.name
    raise UserError(
        f"dataset.root={root!r} has neither {archive.folder}/ nor {archive.name}; allowed: a "
        f"folder with {holding}"
    )


def obtained(archive: Archive, root: str, folder: Path) -> Path:
    """Returns the folder in which the archive's own folder lies, unpacking or downloading it.

    Args:
        root: as in `given_archive`; nothing is written to it. Empty: it is downloaded.
        folder: for downloaded and unpacked files.

    Raises:
        UserError: the user's folder does not hold it, or another file of that name.
        MachineError: the archive cannot be downloaded.
    """
    packed = given_archive(archive, root) if root else folder / archive.name
    if packed.is_dir():
        return packed
    if root:
        check_published(packed, archive.md5, archive.url)
    with locked(folder / "lock", f"waiting for another process that unpacks {archive.name}"):
        if (folder / archive.folder).is_dir():
            return folder
        if not root and not (packed.is_file() and md5_of(packed) == archive.md5):
            download(archive.url, packed, archive.md5)
        unpack(packed, folder, archive.folder)
        if not root:
            packed.unlink()
    return folder


def unpack(packed: Path, folder: Path, inner: str) -> None:
    """Unpacks a tar or zip archive so that `folder / inner` is whole or absent.

    Raises:
        UserError: the archive is damaged, leads out of the folder, or does not hold `inner`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".unpacking-*"):  # of a process that was killed
        shutil.rmtree(left_over)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        if packed.suffix == ".zip":
            _unpack_zip(packed, temporary)
        else:
            _unpack_tar(packed, temporary)
        if not (temporary / inner).is_dir():
            raise UserError(f"{str(packed)!r} does not hold {inner}/")
        (temporary / inner).rename(folder / inner)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{str(packed)!r} cannot be unpacked ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_tar(packed: Path, folder: Path) -> None:
    with tarfile.open(packed) as archive:
        members = archive.getmembers()
        with progress_bar(len(members), f"unpacking {packed.name}", "files") as bar:
            for member in members:
                # Refuses names and links that lead out of the folder, and devices.
                archive.extract(member, folder, filter="data")
                bar.update()


def _unpack_zip(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        members = archive.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            # Extracting would quietly put it elsewhere.
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{str(packed)!r} cannot be unpacked ({member.filename!r} leads out of the "
                    "folder)"
                )
        with progress_bar(len(members), f"unpacking {packed.name}", "files") as bar:
            for member in members:
                archive.extract(member, folder)
                bar.update()
