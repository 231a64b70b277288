"""Gateways as programs: ours with its objects in a folder, and peers in environments of their own.

The peers are installed by the Makefile into build/tools/<name>, from requirements/<name>.txt.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from overspill.api.keys import digest
from overspill.gateway.balance import Address

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "build" / "tools"
KEY = "osk-bench"
STAND_IN = {"batching": {"maxSequences": 1024}, "runtime": "vllm"}  # servers that compute nothing
START_SECONDS = 300.0  # LiteLLM takes 15 s of a whole core


def free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Program:
    """A gateway to start: its command, where it listens, and where it says that it is ready."""

    command: list[str]
    url: str
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


Maker = Callable[[Sequence[Address], Path], Program]


def ours(
    addresses: Sequence[Address], folder: Path, engine: Mapping[str, Any] = STAND_IN
) -> Program:
    """Return our gateway.

    :param addresses: of the replicas.
    :param folder: an empty one, for its objects.
    :param engine: what they are, as in the service's spec.
    """
    port, internal = free_port(), free_port()
    space = {"namespace": "team-a"}
    label = {"labels": {"kubernetes.io/service-name": "m"}}
    objects: list[dict[str, Any]] = [
        {
            "kind": "InferenceService",
            "metadata": {"name": "m", **space},
            "spec": {"model": {"uri": "hf://a/b"}, "engine": dict(engine)},
        },
        {
            "kind": "Secret",
            "metadata": {"name": "key", "labels": {"overspill.dev/key": "true"}},
            "stringData": {"sha256": digest(KEY), "tenant": "team-a"},
        },
    ]
    objects += [
        {
            "kind": "EndpointSlice",
            "metadata": {"name": f"m-{number}", **space, **label},
            "ports": [{"name": "http", "port": address[1]}],
            "endpoints": [{"addresses": [address[0]]}],
        }
        for number, address in enumerate(addresses)
    ]
    for number, raw in enumerate(objects):
        (folder / f"{number}.json").write_text(json.dumps(raw))
    command = [str(Path(sys.executable).with_name("overspill")), "gateway", f"--objects={folder}"]
    command += [f"--port={port}", f"--internal-port={internal}"]
    return Program(command, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{internal}/readyz")


LAUNCH = {
    "vllm-router": [str(TOOLS / "vllm-router/bin/vllm-router")],
    "sglang-router": [
        str(TOOLS / "sglang-router/bin/python"), "-m", "sglang_router.launch_router"
    ],
}  # fmt: skip


def rust_router(name: str, policy: str, addresses: Sequence[Address], folder: Path) -> Program:
    """Return one of the Rust routers with one of its policies, all else at its defaults."""
    port = free_port()
    workers = [f"http://{host}:{number}" for host, number in addresses]
    command = [*LAUNCH[name], "--worker-urls", *workers, "--policy", policy]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(free_port())]
    return Program(command, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/health")


def litellm(addresses: Sequence[Address], folder: Path) -> Program:
    """Return LiteLLM's proxy: one worker, no database, replicas in turns as it comes.

    :param folder: for its configuration.
    """
    port = free_port()
    models = [
        {
            "model_name": "m",
            "litellm_params": {
                "model": "openai/m",
                "api_base": f"http://{host}:{number}/v1",
                "api_key": "none",
            },
        }
        for host, number in addresses
    ]
    config = folder / "config.json"  # which is YAML, too
    config.write_text(json.dumps({"model_list": models}))
    command = [str(TOOLS / "litellm/bin/litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # Else it looks for prices on the network at its start.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    url = f"http://127.0.0.1:{port}"
    return Program(command, url, f"{url}/health/liveliness", environment)


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a process group of its own, from when it is ready to the block's end."""
    process = await asyncio.create_subprocess_exec(
        *program.command,
        env=os.environ | program.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_SECONDS):
            while process.returncode is None and not await _ready(program.ready, session):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        if process.returncode is not None:
            raise RuntimeError(f"{program.command[0]} ended with status {process.returncode}")
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _ready(url: str, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
