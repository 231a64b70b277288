"""What was made cheaper does what it did: the request's log line, and an answer's first write."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from overspill.gateway.server import Beginning

PROGRAM = """
import structlog
from overspill import logs
logs.configure({level!r})
fields = {{"id": "é", "wait": None, "stream": False, "seconds": 0.25}}
structlog.get_logger("x").info("request", **fields)
logs.info("request", fields)
"""


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("info", 2), ("warning", 0)])
def test_the_line_of_a_request_is_as_structlog_writes_it(level: str, lines: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(level=level)]
    run = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == lines
    for theirs, ours in [found] if found else []:
        times = theirs.pop("timestamp"), ours.pop("timestamp")
        assert list(theirs.items()) == list(ours.items())
        assert all(time.endswith("Z") and len(time) in (20, 27) for time in times)


class Transport:
    """Remembers what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def is_closing(self) -> bool:
        return "closed" in self.done

    def close(self) -> None:
        self.done.append("closed")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"", b"chunk", b"chunk"], [b"head", b"chunk", b"chunk"]),
        ([b"head", None], [b"head", "closed"]),
        ([None], ["closed"]),
        ([b"head", b"body", None], [b"headbody", "closed"]),
    ],
)
def test_head_and_first_body_are_one_write(messages: list[bytes | None], expected: Any) -> None:
    """None: the connection is closed."""
    transport = Transport()
    cycle = SimpleNamespace()
    cycle.transport = Beginning(cycle, transport)  # type: ignore[arg-type]
    for message in messages:
        if message is None:
            cycle.transport.close()
        else:
            cycle.transport.write(message)
    assert transport.done == expected
    assert cycle.transport.is_closing() == (None in messages)
