import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdplatform.data import _downloads
from kdplatform.data._downloads import Archive, download, obtained, unpack
from kdplatform.errors import MachineError, UserError

CONTENT = b"content " * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Answers each request with the next of the answers, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, int]] = [(200, CONTENT, len(CONTENT))]
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body, length = outer.answers[min(outer.requests, len(outer.answers) - 1)]
                outer.requests += 1
                self.send_response(code)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data.bin"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_downloads, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(_downloads, "_PAUSE_SECONDS", 0.0)


def test_a_file_is_fetched_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    download(server.url, tmp_path / "new" / "data.bin", MD5)
    assert (tmp_path / "new" / "data.bin").read_bytes() == CONTENT
    assert len(list((tmp_path / "new").iterdir())) == 1


# The server is down for a moment; the connection breaks off in the middle; another file is sent.
@pytest.mark.parametrize(
    "answer",
    [(503, b"", 0), (200, CONTENT[:99], len(CONTENT)), (200, b"<html>", 6)],
)
def test_a_second_attempt_is_made(
    server: Server,
    tmp_path: Path,
    answer: tuple[int, bytes, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answers.insert(0, answer)
    download(server.url, tmp_path / "data.bin", MD5)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests == 2
    assert "trying again" in capsys.readouterr().err


def test_another_file_than_the_published_one_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, b"<html>", 6)]
    with pytest.raises(MachineError, match=rf"sent another file \(md5 \w+\), 3 times.*{MD5}"):
        download(server.url, tmp_path / "data.bin", MD5)
    assert server.requests == 3
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_says_where_to_put_it(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, b"", 0)]
    with pytest.raises(MachineError, match=r"answered 404 .* or put data\.bin .* dataset\.root$"):
        download(server.url, tmp_path / "data.bin", MD5)


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(MachineError, match=r"no answer \(.*timed out.*\), 3 times"):
            download(url, tmp_path / "data.bin", MD5)
    with pytest.raises(MachineError, match=r"no answer \(.*refused.*\), 3 times"):
        download(url, tmp_path / "data.bin", MD5)


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
def archive(server: Server, tmp_path: Path) -> Archive:
    content = packed(tmp_path / "data.tar.gz", ["inner/a"]).read_bytes()
    server.answers = [(200, content, len(content))]
    md5 = hashlib.md5(content).hexdigest()
    return Archive(server.url, "data.tar.gz", md5, "inner")


def test_without_a_root_it_is_downloaded_once(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    for _ in range(2):
        assert obtained(archive, "", tmp_path / "own") == tmp_path / "own"
    assert (tmp_path / "own" / "inner" / "a").exists()
    assert not (tmp_path / "own" / "data.tar.gz").exists()
    assert server.requests == 1


def test_an_archive_put_into_the_data_folder_by_hand_is_taken(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "data.tar.gz").rename(tmp_path / "own.tar.gz")
    (tmp_path / "own").mkdir()
    (tmp_path / "own.tar.gz").rename(tmp_path / "own" / "data.tar.gz")
    obtained(archive, "", tmp_path / "own")
    assert server.requests == 0


def test_a_users_archive_is_unpacked_elsewhere(archive: Archive, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert obtained(archive, str(tmp_path), tmp_path / "own") == tmp_path / "own"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "own"}


def test_a_users_folder_is_read_where_it_lies(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "there" / "inner").mkdir(parents=True)
    for root in ("there", "there/inner"):
        assert obtained(archive, str(tmp_path / root), tmp_path / "own") == tmp_path / "there"


def test_a_users_archive_that_is_cut_short_is_refused(archive: Archive, tmp_path: Path) -> None:
    wrong = replace(archive, md5=MD5)
    with pytest.raises(UserError, match=rf"not the published file .*expected {MD5}.*http://"):
        obtained(wrong, str(tmp_path), tmp_path / "own")


def test_a_users_folder_without_it_says_what_is_expected(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").unlink()
    with pytest.raises(UserError, match=r"holds neither inner/ nor data\.tar\.gz; .*http://"):
        obtained(archive, str(tmp_path), tmp_path / "own")
