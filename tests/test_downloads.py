import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kdplatform import downloads
from kdplatform.downloads import SHA256, download
from kdplatform.errors import MachineError

FileLimit = Callable[[int], AbstractContextManager[None]]

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
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)


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
    with pytest.raises(MachineError, match=rf"\(sent another file \(md5 \w+\), 3 times\).*{MD5}"):
        download(server.url, tmp_path / "data.bin", MD5)
    assert server.requests == 3
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_says_where_to_put_it(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, b"", 0)]
    with pytest.raises(
        MachineError, match=r"answered 404 .* or data\.bin \(md5 .* put into .* dataset\.root$"
    ):
        download(server.url, tmp_path / "data.bin", MD5)


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(MachineError, match=r"\(no answer: .*timed out.*, 3 times\)"):
            download(url, tmp_path / "data.bin", MD5)
    with pytest.raises(MachineError, match=r"\(no answer: .*refused.*, 3 times\)"):
        download(url, tmp_path / "data.bin", MD5)


def test_the_first_digits_of_a_checksum_may_be_all_that_is_published(
    server: Server, tmp_path: Path
) -> None:
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    download(server.url, tmp_path / "data.bin", digits, SHA256)
    assert (tmp_path / "data.bin").exists()
    with pytest.raises(MachineError, match=rf"data\.bin \(sha256 {digits}0\) put into"):
        download(server.url, tmp_path / "other" / "data.bin", f"{digits}0", SHA256)


def test_a_full_disk_is_no_failure_of_the_network(
    server: Server, tmp_path: Path, largest_file: FileLimit
) -> None:
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        download(server.url, tmp_path / "data.bin", MD5)
    assert server.requests == 1
    assert not list(tmp_path.iterdir())
