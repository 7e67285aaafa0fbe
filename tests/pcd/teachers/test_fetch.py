import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pcd.errors import PCDError
from pcd.layouts import HeadLayout, TrunkLayout
from pcd.teachers.entry import TeacherEntry
from pcd.teachers.fetch import fetch_teacher

CONTENT = bytes(range(256)) * 10_000  # 2.56 MB: more than two blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def _entry(url: str, sha256: str | None = SHA256, size_bytes: int | None = len(CONTENT)) -> TeacherEntry:
    return TeacherEntry(
        name="tiny",
        title="",
        url=url,
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        noncommercial=False,
        top_key="state_dict",
        trunk_prefix="",
        head_prefix="fc.",
        trunk=TrunkLayout(block="basic", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)),
        head=HeadLayout(widths=(8, 4), bias=False, norm=True, last_norm="plain"),
        accuracy="",
        source="",
    )


class _Publisher(BaseHTTPRequestHandler):
    """/whole is good; the others break off in the middle, each in its own way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        match self.path:
            case "/whole":
                self._begin({"Content-Length": str(len(CONTENT))})
                self.wfile.write(CONTENT)
            case "/unknown-length":
                self._begin({})
                self.wfile.write(CONTENT)
            case "/broken":
                self._begin({"Content-Length": str(len(CONTENT))})
                self.wfile.write(CONTENT[:1_500_000])
            case "/broken-chunks":
                self._begin({"Transfer-Encoding": "chunked"})
                self.wfile.write(b"100000\r\n" + CONTENT[:1000])
            case "/no-http":
                self.wfile.write(b"hello?\r\n\r\n")
            case _:
                self.send_error(404)

    def _begin(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment, ThreadingHTTPServer(("127.0.0.1", 0), _Publisher) as http:
        environment.setenv("no_proxy", "127.0.0.1")
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The publisher's file on this machine."""
    path = tmp_path / "published" / "tiny.pth.tar"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    path = tmp_path / "here" / "tiny.pth.tar"
    path.parent.mkdir()
    return path


def _refusal(entry: TeacherEntry, destination: Path) -> str:
    """What a user reads when the file cannot be had; and nothing may be left behind then."""
    with pytest.raises(PCDError) as caught:
        fetch_teacher(entry, destination)
    assert list(destination.parent.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_local_file_is_copied_unchanged(source: Path, destination: Path) -> None:
    fetch_teacher(_entry(source.as_uri()), destination)
    assert destination.read_bytes() == CONTENT


def test_hash_of_the_file_is_returned(source: Path, destination: Path) -> None:
    assert fetch_teacher(_entry(source.as_uri(), sha256=None, size_bytes=None), destination) == SHA256


def test_only_the_file_is_left(source: Path, destination: Path) -> None:
    fetch_teacher(_entry(source.as_uri()), destination)
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.parametrize("page", ["whole", "unknown-length"])
def test_served_file_is_copied_unchanged(server: str, destination: Path, page: str) -> None:
    fetch_teacher(_entry(f"{server}/{page}"), destination)
    assert destination.read_bytes() == CONTENT


def test_progress_ends_at_the_whole_file(server: str, destination: Path) -> None:
    told: list[tuple[int, int]] = []
    fetch_teacher(_entry(f"{server}/whole"), destination, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_progress_rises(server: str, destination: Path) -> None:
    told: list[int] = []
    fetch_teacher(_entry(f"{server}/whole"), destination, lambda done, total: told.append(done))
    assert len(told) > 1
    assert told == sorted(set(told))


def test_wrong_hash_is_refused_with_both_hashes(source: Path, destination: Path) -> None:
    message = _refusal(_entry(source.as_uri(), sha256="0" * 64), destination)
    assert SHA256 in message
    assert "0" * 64 in message


@pytest.mark.parametrize("size", [1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_wrong_size_is_refused_with_both_sizes(source: Path, destination: Path, size: int) -> None:
    message = _refusal(_entry(source.as_uri(), size_bytes=size), destination)
    assert f"{size:,} were expected" in message
    assert f"gave {len(CONTENT):,} bytes" in message


def test_missing_file_is_refused(source: Path, destination: Path) -> None:
    assert "cannot reach" in _refusal(_entry(source.with_name("none").as_uri()), destination)


def test_closed_port_is_refused(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "cannot reach http://127.0.0.1:9/x" in _refusal(_entry("http://127.0.0.1:9/x"), destination)


def test_page_not_found_is_refused(server: str, destination: Path) -> None:
    assert "Not Found" in _refusal(_entry(f"{server}/none"), destination)


@pytest.mark.parametrize("page", ["broken", "broken-chunks"])
def test_file_that_breaks_off_is_refused(server: str, destination: Path, page: str) -> None:
    assert f"{server}/{page}" in _refusal(_entry(f"{server}/{page}"), destination)


@pytest.mark.parametrize("page", ["broken", "broken-chunks"])
def test_file_of_unknown_hash_and_size_that_breaks_off_is_refused(server: str, destination: Path, page: str) -> None:
    entry = _entry(f"{server}/{page}", sha256=None, size_bytes=None)
    assert "broke off" in _refusal(entry, destination)


def test_server_that_speaks_no_http_is_refused(server: str, destination: Path) -> None:
    assert f"{server}/no-http" in _refusal(_entry(f"{server}/no-http"), destination)


def test_refused_file_leaves_an_earlier_one_alone(source: Path, destination: Path) -> None:
    destination.write_bytes(b"earlier")
    with pytest.raises(PCDError):
        fetch_teacher(_entry(source.as_uri(), sha256="0" * 64), destination)
    assert destination.read_bytes() == b"earlier"
