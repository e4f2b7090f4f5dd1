import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from kdplatform.data._sources import Archive, obtained, unpack
from kdplatform.errors import UserError


def packed(path: Path, names: list[str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_an_archive_is_unpacked_whole(tmp_path: Path, name: str) -> None:
    unpack(packed(tmp_path / name, ["inner/a", "inner/b/c"]), tmp_path / "to", "inner")
    assert (tmp_path / "to" / "inner" / "b" / "c").read_text() == "x"
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["inner"]


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
@pytest.mark.parametrize("member", ["../outside", "inner/../../outside", "/tmp/kdplatform-outside"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, name: str, member: str
) -> None:
    archive = packed(tmp_path / name, ["inner/a", member])
    # A tar's absolute names are made relative, which is safe too.
    if not (name.endswith("gz") and member.startswith("/")):
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(archive, tmp_path / "to", "inner")
        assert not list((tmp_path / "to").iterdir())
    else:
        unpack(archive, tmp_path / "to", "inner")
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/kdplatform-outside").exists()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("inner/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../etc"
        archive.addfile(link)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "data.tar.gz", tmp_path / "to", "inner")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    content = packed(tmp_path / name, ["inner/a"]).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / name, tmp_path / "to", "inner")
    assert not list((tmp_path / "to").iterdir())


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A published archive, at an address that needs no network."""
    path = packed(tmp_path / "data.tar.gz", ["inner/a"])
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return Archive(path.as_uri(), path.name, md5, "inner")


def test_without_a_root_it_is_downloaded_once(archive: Archive, tmp_path: Path) -> None:
    assert obtained(archive, "", tmp_path / "own") == tmp_path / "own"
    (tmp_path / "data.tar.gz").unlink()
    assert obtained(archive, "", tmp_path / "own") == tmp_path / "own"
    assert (tmp_path / "own" / "inner" / "a").exists()
    assert not (tmp_path / "own" / "data.tar.gz").exists()


def test_an_archive_put_into_the_data_folder_by_hand_is_taken(
    archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "data.tar.gz").rename(tmp_path / "own" / "data.tar.gz")
    assert obtained(archive, "", tmp_path / "own") == tmp_path / "own"


def test_a_users_archive_is_unpacked_elsewhere(archive: Archive, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert obtained(archive, str(tmp_path), tmp_path / "own") == tmp_path / "own"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "own"}


def test_a_users_folder_is_read_where_it_lies(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "there" / "inner").mkdir(parents=True)
    for root in ("there", "there/inner"):
        assert obtained(archive, str(tmp_path / root), tmp_path / "own") == tmp_path / "there"


def test_a_users_archive_that_is_cut_short_is_refused(archive: Archive, tmp_path: Path) -> None:
    wrong = replace(archive, md5="0" * 32)
    with pytest.raises(UserError, match=r"not the published file .*expected 0{32}.*file://"):
        obtained(wrong, str(tmp_path), tmp_path / "own")


def test_a_users_folder_without_it_says_what_is_expected(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").unlink()
    with pytest.raises(UserError, match=r"has neither inner/ nor data\.tar\.gz; .*file://"):
        obtained(archive, str(tmp_path), tmp_path / "own")
