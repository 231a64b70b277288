"""`overspill-engine serve` with a real vLLM on CPUs (`make test-vllm` makes it)."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vllm_cpu

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 600  # on a busy machine; 75 s on a quiet one
OPTIONS = {
    "ENGINE": "vllm",
    "MODEL_PATH": vllm_cpu.MODEL,
    "SERVED_NAME": "chat",
    "CONTEXT_LENGTH": 1024,
    "MAX_SEQUENCES": 2,
    # Without the first it compiles for minutes, without the second it takes half of the memory.
    "ENGINE_ARGS": '["enforce_eager=true", "kv_cache_memory_bytes=268435456"]',
}


def environment(options: dict[str, object]) -> dict[str, str]:
    """What a pod of the image would have."""
    given = {f"OVERSPILL_{name}": str(value) for name, value in options.items()}
    return {**os.environ, "PYTHONPATH": str(ROOT / "operator"), **given}


def python(script: str, *arguments: str) -> Any:
    """What a script that runs beside vLLM prints as the last line, which is JSON."""
    command = [str(vllm_cpu.PYTHON), "-c", script, *arguments]
    done = subprocess.run(command, env=environment({}), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class Served:
    """One engine, which may still be starting."""

    def __init__(self, log: Path, **options: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        program = [str(vllm_cpu.PYTHON), "-m", "overspill.engine.main", "serve"]
        env = environment({**OPTIONS, "PORT": self.port, **options})
        with log.open("w") as output:
            self.process = subprocess.Popen(program, env=env, stdout=output, stderr=output)

    def wait(self) -> "Served":
        """Return once the model is loaded."""
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(1)
        return self

    def _healthy(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def end(self) -> tuple[int, str]:
        """Exit status and last line of an engine that ends."""
        return self.process.wait(timeout=START_SECONDS), self.log.read_text().splitlines()[-1]

    def page(self) -> str:
        """The metrics page."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as page:
            return str(page.read().decode())

    def complete(self, prompt: str, tokens: int) -> dict[str, Any]:
        """The answer of exactly so many tokens."""
        body = {"model": "chat", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return dict(json.load(answer))


@contextmanager
def engine(log: Path, **options: object) -> Iterator[Served]:
    """One engine, which ends with this whatever happens: it takes 4 GB."""
    served = Served(log, **options)
    try:
        yield served
    finally:
        served.process.terminate()
        served.process.wait(timeout=200)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One engine for all tests of a file."""
    with engine(tmp_path_factory.mktemp("vllm") / "engine.log") as served:
        yield served.wait()
