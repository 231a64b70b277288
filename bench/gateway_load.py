"""The ends of bench/gateway.py's measurement: replicas, clients, and what the gateway itself used.

Whole answers come from one nginx on four ports, which reads no more of a request than it must, and
are asked for by wrk (bench/gateway.lua). Streams come from and go to a small compiled program
(bench/streams). Both ends share one core, the gateway has another for itself; of several gateways
that run all but the one under test are stopped.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overspill.gateway.balance import Address
from programs import KEY, ROOT, TOOLS, Program, free_port, running

GATEWAY_CORE, LOAD_CORE = 1, 0
PATIENCE = 60  # seconds that a client waits for an answer, and that a run may last beyond its time
TEXT = "Lisbon is the capital of Portugal."
ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 32, "completion_tokens": 8, "total_tokens": 40},
    }
)
# One process that stays who it is; it keeps connections while their gateway is stopped.
NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; client_max_body_size 0;
  keepalive_timeout 1h; keepalive_time 1h; keepalive_requests 1000000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    {listen}
    location / {{ return 200 '{answer}'; }}
  }}
}}
"""
STREAMS = str(TOOLS / "streams")


@dataclass(frozen=True)
class Load:
    """What clients ask for.

    :param body_bytes: of a request.
    :param connections: each with one request at a time.
    :param stream: answers come as events.
    """

    body_bytes: int
    connections: int
    stream: bool


@dataclass(frozen=True)
class Upstream:
    """What answers.

    :param stream: with events.
    :param gap: seconds between two of them.
    """

    stream: bool
    replicas: int = 4
    gap: float = 0.02


@asynccontextmanager
async def replicas(upstream: Upstream, folder: Path) -> AsyncIterator[list[Address]]:
    """Run the upstream.

    :param folder: an empty one, for nginx.
    """
    ports = [free_port() for _ in range(upstream.replicas)]
    if upstream.stream:
        command = [STREAMS, "serve", "-every", f"{upstream.gap}s"]
        command += ["-ports", ",".join(map(str, ports))]
    else:
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
        (folder / "nginx.conf").write_text(NGINX.format(listen=listen, answer=ANSWER))
        nginx = str(TOOLS / "load/usr/sbin/nginx")
        command = [nginx, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
    program = Program(on_core(LOAD_CORE, command), "", f"http://127.0.0.1:{ports[0]}/health")
    async with running(program):
        yield [("127.0.0.1", port) for port in ports]


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that has one core for itself and its children."""
    return ["taskset", "--cpu-list", str(core), *command]


async def send(url: str, load: Load, seconds: float) -> dict[str, Any]:
    """Load a gateway; return what its clients saw.

    :raises RuntimeError: when the clients end with an error, or not in time.
    """
    environment = dict(os.environ)
    if load.stream:
        command = [STREAMS, "load", "-url", url, "-key", KEY]
        command += ["-connections", str(load.connections), "-seconds", str(seconds)]
    else:
        debian = TOOLS / "load/usr"
        libraries = next(debian.glob("lib/*/libluajit*")).parent
        environment["LD_LIBRARY_PATH"] = str(libraries)
        command = [str(debian / "bin/wrk"), "--threads", "1", "--timeout", str(PATIENCE)]
        command += ["--connections", str(load.connections), "--duration", f"{seconds:.0f}s"]
        command += ["--script", str(ROOT / "bench/gateway.lua"), url]
        command += ["--", KEY, str(load.body_bytes), TEXT]
    process = await asyncio.create_subprocess_exec(
        *on_core(LOAD_CORE, command), env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds + PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise RuntimeError(f"{command[0]} did not end") from None
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@dataclass(frozen=True)
class Used:
    """What a gateway's processes took so far.

    :param cpu: seconds, of the user and of the system.
    :param resident: bytes now.
    """

    cpu: float
    resident: int


def used(group: int) -> Used:
    """Read what a process group has used, its ended children included.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    fields = [found for found in map(_stat, _processes()) if found and found[2] == str(group)]
    ticks = sum(int(field) for found in fields for field in found[11:15])
    pages = sum(int(found[21]) for found in fields)
    return Used(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*/stat")


def _stat(path: Path) -> list[str]:
    """Return the fields from the state on (the third); none when the process has just ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextmanager
def awake(group: int) -> Iterator[None]:
    """Let a stopped process group run."""
    os.killpg(group, signal.SIGCONT)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGSTOP)
