import http.server
import threading
from collections.abc import Iterator

import pytest

from flows.orchestration.health import reason_for_silence


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server whose health is at /api/health."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/api", "/api/", "/another"])
@pytest.mark.parametrize("login", ["", "me:hidden@"])
def test_whoever_answers_is_there_also_if_it_says_no(port: int, login: str, path: str) -> None:
    assert reason_for_silence(f"http://{login}127.0.0.1:{port}{path}") is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://me:hidden@127.0.0.1:9/api", "refused"),
        ("http://me:hidden@127.0.0.1:port/api", "nonnumeric port: 'port'"),
        ("http://me:hidden@/api", "no host given"),
        ("127.0.0.1", "unknown url type"),
    ],
)
def test_why_nobody_answers_is_told_without_the_password(address: str, told: str) -> None:
    reason = reason_for_silence(address)
    assert reason is not None
    assert told in reason
    assert "hidden" not in reason
