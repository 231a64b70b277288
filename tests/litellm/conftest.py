"""LiteLLM's proxy as a process, in the place of a cloud."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The gateway's own test world.
sys.path.insert(0, str(ROOT / "tests/unit/gateway"))

PROGRAM = ROOT / "build/tools/litellm/bin/litellm"
# Else it looks for prices on the network at its start.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
START_SECONDS = 300.0  # it takes 15 s of a whole core
SAID = "Hello from LiteLLM."


@dataclass(frozen=True)
class Proxy:
    """A proxy that answers by itself (``canned``), or asks a server behind it (``behind``)."""

    url: str
    behind: tuple[str, int]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """LiteLLM's proxy, which wants the key that the gateway's provider has."""
    port, behind = free_port(), ("127.0.0.1", free_port())
    server = {"api_base": f"http://{behind[0]}:{behind[1]}/v1", "api_key": "none"}
    models = {
        "canned": {"model": "openai/any", "api_key": "none", "mock_response": SAID},
        "behind": {"model": "openai/any", **server},
    }
    config = {
        "model_list": [{"model_name": n, "litellm_params": p} for n, p in models.items()],
        "general_settings": {"master_key": "cloud-secret"},
    }
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.json").write_text(json.dumps(config))  # which is YAML, too
    command = [PROGRAM, "--config", folder / "config.json", "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health/liveliness", folder / "log")
        yield Proxy(f"http://127.0.0.1:{port}/v1", behind)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (OSError, urllib.error.HTTPError):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
