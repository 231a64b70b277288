"""`overspill-engine serve` with the real llama.cpp and a small real model, on this machine."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import images

# The gateway's own test world.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "gateway"))

CACHE = Path(os.environ.get("OVERSPILL_CACHE") or Path.home() / ".cache/overspill") / "models"
START_SECONDS = 120


class Served:
    """One running engine."""

    def __init__(self, port: int, options: dict[str, object], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        given = {f"OVERSPILL_{name}": str(value) for name, value in options.items()}
        env = {**os.environ, "OVERSPILL_PORT": str(port), "GOMP_SPINCOUNT": "1000", **given}
        program = [sys.executable, "-m", "overspill.engine.main", "serve"]
        with log.open("w") as output:
            self.process = subprocess.Popen(program, env=env, stdout=output, stderr=output)

    def ready(self) -> bool:
        """Whether the model is loaded; an engine that ended fails the test."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def wait(self) -> "Served":
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.1)
        return self

    def complete(self, prompt: str, tokens: int) -> dict[str, Any]:
        """The answer to a prompt, always the same."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return dict(json.load(answer))

    def metrics(self) -> dict[str, float]:
        """Every series of the metrics page."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        series = (line.rpartition(" ") for line in lines if line and line[0] != "#")
        return {name: float(value) for name, _, value in series}

    def logged(self, event: str) -> dict[str, Any]:
        """The first log entry of that name."""
        entries = (
            json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"
        )
        return next(dict(entry) for entry in entries if entry["event"] == event)

    def memory(self) -> int:
        """Bytes of all its processes; what several share counts once."""
        pids = [self.process.pid, *children(self.process.pid)]
        return sum(_proportional(pid) for pid in pids)


def children(pid: int) -> list[int]:
    """Processes that a process has started and that still run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _proportional(pid: int) -> int:
    """https://docs.kernel.org/filesystems/proc.html#smaps-rollup"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


@pytest.fixture(scope="session")
def model() -> Path:
    """SmolLM2-135M as a GGUF file."""
    folder = CACHE / "smollm2-135m"
    if not folder.exists():
        partial = folder.with_suffix(f".{os.getpid()}")
        partial.mkdir(parents=True)
        images.download_model(partial)
        partial.rename(folder)
    (file,) = folder.glob("*.gguf")
    return file


@pytest.fixture
def launch(model: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start an engine with these options; it is ended after the test."""
    started: list[Served] = []

    def start(**options: object) -> Served:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        given = {"MODEL_PATH": model, "CPU_THREADS": 1, **options}
        started.append(Served(port, given, tmp_path / f"engine-{len(started)}.log"))
        return started[-1]

    yield start
    for engine in started:
        engine.process.terminate()
        engine.process.wait(timeout=30)
