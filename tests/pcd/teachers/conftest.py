"""A publisher's web server on this machine, and a teacher that is small enough for it."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CONTENT = bytes(range(256)) * 10_000
"""2.56 MB: more than two blocks."""


@dataclass
class Publisher:
    """Serves one file at any path; the tests change how while it runs."""

    address: str = ""
    content: bytes = CONTENT
    tag: str | None = '"first"'
    """ETag of the content."""
    last_modified: str | None = None
    honours_range: bool = True
    honours_if_range: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """How many bytes of its body each next answer gives before it breaks off; then all are whole."""
    body: str = "sized"
    """Or `unsized`, `chunked`, `no http`, `404`."""
    asked: list[str] = field(default_factory=list)
    """The Range header of each request, `` for none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def do_GET(self) -> None:
        publisher, wanted = self.publisher, self.headers.get("Range", "")
        publisher.asked.append(wanted)
        self.close_connection = True
        if publisher.body == "404":
            self.send_error(404)
            return
        if publisher.body == "no http":
            self.wfile.write(b"hello?\r\n\r\n")
            return
        content, total, first = publisher.content, len(publisher.content), 0
        if wanted and publisher.honours_range and self._is_unchanged():
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert match
            first = int(match[1])
            if first >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        for name, value in (("ETag", publisher.tag), ("Last-Modified", publisher.last_modified)):
            if value:
                self.send_header(name, value)
        if publisher.body == "sized":
            self.send_header("Content-Length", str(total - first))
        if publisher.body == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = content[first:]
        sent = body[: publisher.breaks_after.pop(0)] if publisher.breaks_after else body
        if publisher.body == "chunked":
            sent = f"{len(body):x}\r\n".encode() + sent + (b"\r\n0\r\n\r\n" if sent == body else b"")
        self.wfile.write(sent)

    def _is_unchanged(self) -> bool:
        publisher = self.publisher
        told = self.headers.get("If-Range")
        return not publisher.honours_if_range or told in (publisher.tag, publisher.last_modified)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Publisher()
    handler = type("Handler", (_Handler,), {"publisher": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        served.address = f"http://127.0.0.1:{http.server_port}/files/tiny.pth.tar"
        yield served
        http.shutdown()
