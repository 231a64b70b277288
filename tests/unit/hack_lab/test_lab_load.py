"""What stories and the demo count as a failed request: anything but a complete 2xx."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.kube import eventually
from lab.load import Client, Load, send_at, send_one

WORD = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\n'
ERROR = b'data: {"error":{"message":"broken"}}\n\n'
DONE = b"data: [DONE]\n\n"
UNARY = b'{"choices":[{"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'


class Gateway(ThreadingHTTPServer):
    """Answers everything in the same way."""

    answer: tuple[int, bytes, dict[str, str]] = (200, b"", {})

    @property
    def url(self) -> str:
        """Its API."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body, headers = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("stream", "status", "body", "failed"),
    [
        (True, 200, WORD + END + USAGE + DONE, False),
        (True, 200, WORD + END + USAGE, True),
        (True, 200, WORD + USAGE + DONE, True),
        (True, 200, WORD + ERROR + DONE, True),
        (True, 200, WORD + END + ERROR + DONE, True),
        (True, 200, WORD[:-9], True),
        (True, 200, b"", True),
        (True, 500, b"{}", True),
        (True, 200, WORD + b"data: null\n\n" + END + DONE, True),
        (False, 200, UNARY, False),
        (False, 200, UNARY[:-1], True),
        (False, 200, b"{}", True),
        (False, 200, UNARY.replace(b'"stop"', b"null"), True),
        (False, 429, b"{}", True),
        (False, 302, b"", True),
    ],
)
def test_what_is_no_whole_answer_has_failed(
    gateway: Gateway, stream: bool, status: int, body: bytes, failed: bool
) -> None:
    gateway.answer = (status, body, {"x-overspill-destination": "team-a/cloud"})
    sent = send_one(Client(gateway.url, "key", "chat", stream=stream))
    assert (sent.status, sent.failed, sent.destination) == (status, failed, "cloud")


def test_a_broken_answer_is_counted_and_does_not_end_the_load(gateway: Gateway) -> None:
    """Else a run of which nothing is recorded any more would look like one without failures."""
    gateway.answer = (200, WORD[:-9], {})
    load = Load(Client(gateway.url, "key", "chat"))
    with load.running(2):
        eventually("both clients went on", lambda: len(load.sent) > 2, timeout=30)
    assert all(sent.failed for sent in load.sent)


def test_requests_go_at_their_moments_and_come_back_in_that_order(gateway: Gateway) -> None:
    gateway.answer = (200, WORD + END + USAGE + DONE, {})
    sent = send_at(Client(gateway.url, "key", "chat"), [0.0, 0.0, 0.1])
    assert not any(s.failed for s in sent)
    assert sent[2].t - sent[0].t >= 0.09
