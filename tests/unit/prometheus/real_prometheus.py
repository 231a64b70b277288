"""A real Prometheus on loopback, with targets that it scrapes, or with a past that was made."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROMETHEUS = shutil.which("prometheus")
needed = pytest.mark.skipif(
    PROMETHEUS is None, reason="no prometheus on the PATH (Debian package prometheus)"
)


@contextmanager
def started(folder: Path, config: str, *options: str) -> Iterator[str]:
    """Run one in a folder; yield its ``host:port``. What it has written is of no use afterwards."""
    (folder / "prometheus.yml").write_text(config)
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", *options]
    command += [f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield _address(process, log)
    finally:
        process.kill()
        process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r'"Listening on" address=(\S+)', log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"Prometheus does not listen: {log.read_text()}")


def backfill(folder: Path, samples: Iterable[tuple[str, float, float]]) -> None:
    """Give the Prometheus of a folder samples: series, value, time in seconds since the epoch."""
    lines = [f"{series} {value} {time}" for series, value, time in samples]
    made = folder / "samples"
    made.write_text("\n".join([*lines, "# EOF", ""]))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", made, folder / "data"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
