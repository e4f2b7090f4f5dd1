"""Published files: fetched, checked and unpacked, or one line that says what to put where."""

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdplatform.errors import MachineError, UserError
from kdplatform.files import locked, user_path, written_atomically
from kdplatform.progress import progress_bar, say

ATTEMPTS = 3
_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 2.0
_CHUNK = 1 << 20
# What the network or the server may do; a full disk is none of it.
_SILENCES = (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError)


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


class _OtherFileError(Exception):
    """The server sent something else than the published file."""


def md5_of(path: Path) -> str:
    """Returns the MD5 of a file: what publishers give, against accidents and not attackers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Checksum:
    """A kind of checksum by which publishers name a file's content."""

    name: str
    of: Callable[[Path], str]


def git_id_of(path: Path) -> str:
    """Returns the id that git gives a file's content: the SHA-1 of its length and itself."""
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


MD5 = Checksum("md5", md5_of)
GIT_ID = Checksum("git id", git_id_of)


def download(url: str, target: Path, expected: str, checksum: Checksum = MD5) -> None:
    """Fetches a file; afterwards it is whole and the published one, or absent.

    Args:
        expected: the published file's checksum.

    Raises:
        MachineError: the server does not answer, breaks off or sends something else in each of
            three attempts; names the address, the file, and where it may be put by hand.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            say(f"{url}: {reason}; trying again")
            time.sleep(_PAUSE_SECONDS * attempt)
        try:
            with written_atomically(target) as temporary:
                _transfer(url, temporary)
                if (found := checksum.of(temporary)) != expected:
                    raise _OtherFileError(f"sent another file ({checksum.name} {found})")
            return
        except urllib.error.HTTPError as error:
            reason = f"answered {error.code} {error.reason}"
        except _OtherFileError as error:
            reason = str(error)
        except _SILENCES as error:
            reason = f"no answer ({getattr(error, 'reason', error) or type(error).__name__})"
    raise MachineError(
        f"{url} cannot be downloaded: {reason}, {ATTEMPTS} times; try again later, or put "
        f"{target.name} ({checksum.name} {expected}) into {str(target.parent)!r} or another folder "
        "that is then given as dataset.root"
    )


def _transfer(url: str, target: Path) -> None:
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer,
        target.open("wb") as file,
        progress_bar(int(answer.headers.get("Content-Length", 0)), target.name, "B") as bar,
    ):
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def obtained(archive: Archive, root: str, folder: Path) -> Path:
    """Returns the folder in which the archive's own folder lies, unpacking or downloading it.

    Args:
        root: the user's folder: with the archive, or what was in it; nothing is written to it.
            Empty: it is downloaded.
        folder: where what is downloaded or unpacked is kept.

    Raises:
        UserError: the user's folder holds neither, or another file of that name.
        MachineError: the archive cannot be downloaded.
    """
    if root:
        given = user_path("dataset.root", root)
        if given.name == archive.folder and given.is_dir():
            return given.parent
        if (given / archive.folder).is_dir():
            return given
        packed = given / archive.name
        if not packed.is_file():
            raise UserError(
                f"dataset.root={root!r} holds neither {archive.folder}/ nor {archive.name}; "
                f"allowed: a folder with one of them (from {archive.url}), or no dataset.root at "
                "all to download it"
            )
        _check_md5(packed, archive)
    else:
        packed = folder / archive.name
    with locked(folder / "lock", f"waiting for another process that unpacks {archive.name}"):
        if (folder / archive.folder).is_dir():
            return folder
        if not root and not (packed.is_file() and md5_of(packed) == archive.md5):
            say(f"downloading {archive.url} to {folder}")
            download(archive.url, packed, archive.md5)
        unpack(packed, folder, archive.folder)
        if not root:
            packed.unlink()
    return folder


def _check_md5(path: Path, archive: Archive) -> None:
    if (found := md5_of(path)) != archive.md5:
        raise UserError(
            f"{str(path)!r} is not the published file (md5 {found}, expected {archive.md5}): cut "
            f"short or altered; allowed: the file of {archive.url}"
        )


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
