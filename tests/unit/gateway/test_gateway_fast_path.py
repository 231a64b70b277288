"""What was made cheaper does what it did: the request's log line."""

import subprocess
import sys

import orjson
import pytest

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
