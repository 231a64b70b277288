"""Two gateways as users run them without a cluster: processes, each with a folder of objects."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from canaries import found_in
from gateway_world import provider, service, spillover
from prometheus_client.parser import text_string_to_metric_families
from soak_upstreams import PROMPT_NANO, TOKEN_NANO, Upstream

from overspill.api import metrics as names
from overspill.api.budget import Window
from overspill.api.keys import key_secret, new_key
from overspill.gateway.treasurer import NAME
from overspill.ledger.treasury import Treasury

SLOTS = 4  # of each engine, for each gateway
NARROW = "narrow"  # the cloud whose budget is nearly spent all the time
SERVICE = "service/team-a/chat"
NAMESPACE = "team-a"
HOPELESS = "hopeless"  # a service that refuses at once
_FAULT = {"type": "ModelReady", "status": "False", "reason": "ModelNotFound"}
_HOPELESS = {"conditions": [_FAULT]}
START_SECONDS = 300.0
FULL_MEMORY = 10_000  # newest decisions that a gateway remembers
PRICE = {"inputPerMTok": f"{PROMPT_NANO / 1000:g}", "outputPerMTok": f"{TOKEN_NANO / 1000:g}"}
# Nobody is refused for want of patience: a place to wait is another way to succeed.
PATIENT = {"OVERSPILL_GATEWAY_HOLD": "60s", "OVERSPILL_GATEWAY_QUEUE_BOUND": "1000"}


def new_secret() -> str:
    """A key of a provider, of which no piece may be found anywhere."""
    return secrets.token_hex(24)


class Gateway:
    """One process and its folder.

    :param number: tells it apart, also at the clouds, by its key there.
    """

    def __init__(
        self, number: int, folder: Path, engines: list[Upstream], clouds: list[Upstream]
    ) -> None:
        self.number, self.folder = number, folder / str(number)
        self.engines, self.clouds = engines, clouds
        self.money_since = -float("inf")  # infinite while its record cannot be written
        self.narrow = 10**6  # nano-dollars that the narrow cloud may charge, two worst cases or so
        self.key, self._digest = new_key()
        self.port, self._internal_port = _free_port(), _free_port()
        self.log = folder / f"gateway-{number}.log"
        self.began = time.time()

    # objects

    def write_all(self, listed: list[Upstream]) -> None:
        """Write all objects."""
        self.folder.mkdir(exist_ok=True)
        self._save(
            "key", {"kind": "Secret", **key_secret(NAMESPACE, "ci", self._digest, NAMESPACE)}
        )
        self.write_service()
        self.write_endpoints(listed)
        for cloud in self.clouds:
            self.write_cloud(cloud)

        self._save("hopeless", {"kind": "InferenceService", **service(HOPELESS, status=_HOPELESS)})

    def write_service(self) -> None:
        """The service, which waits 0.5 s for a slot before it spills."""
        found = service(
            spillover=spillover(*(c.name for c in self.clouds), budget={"perMonth": "1000"}),
            engine={"batching": {"maxSequences": SLOTS}},
            scaling={"objective": {"queueWait": {"p95": "500ms"}}},
        )
        found.pop("status")
        self._save("service", {"kind": "InferenceService", **found})

    def write_cloud(self, cloud: Upstream) -> None:
        """A provider and its key."""
        budget = {"perMonth": f"{self.narrow / 1e9:.9f}"} if cloud.name == NARROW else None
        found = provider(
            cloud,
            cloud.name,
            secretRef={"name": f"{cloud.name}-key"},
            models=[{"name": "big-1", "price": PRICE}],
            timeouts={"firstByte": "10s", "idle": "10s"},
            **({"budget": budget} if budget else {}),
        )
        host = f"{cloud.address[0]}:{cloud.address[1]}"
        metadata = {"name": f"{cloud.name}-key", "namespace": NAMESPACE}
        metadata["annotations"] = {"overspill.dev/provider-hosts": host}
        secret = {"kind": "Secret", "metadata": metadata}
        secret["stringData"] = {"api-key": cloud.keys[self.number]}
        self._save(cloud.name, {"kind": "InferenceProvider", **found}, secret)

    def write_endpoints(self, listed: list[Upstream]) -> None:
        """Say which engines are ready."""
        self._save("endpoints", *(_slice(engine) for engine in listed))

    def broken_file(self, broken: bool) -> None:
        """Let there be a file that is none, or not."""
        path = self.folder / "broken.yaml"
        path.write_text("kind: [") if broken else path.unlink()

    def unwritable(self, unwritable: bool) -> None:
        """Let nobody write the ledger's record, or let them again."""
        fresh = (self.folder / NAME).with_suffix(".new")
        if not unwritable:
            fresh.rmdir()
            return
        while not fresh.is_dir():  # a record may just be written there
            fresh.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                fresh.mkdir()

    def _save(self, name: str, *objects: dict[str, Any]) -> None:
        text = "\n---\n".join(json.dumps(found) for found in objects)
        (self.folder / f"{name}.yaml").write_text(text)

    # the process

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        program = "from overspill.cli.main import run; run()"
        options = ["--objects", self.folder, "--host", "127.0.0.1", "--port", self.port]
        options += ["--internal-port", self._internal_port]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - /proc is asked by its number
                [sys.executable, "-c", program, "gateway", *map(str, options)],
                env=os.environ | PATIENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.2)

    async def fill(self) -> None:
        """Let its memory of decisions be full, so that what it takes does not grow any more."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        body = {"model": HOPELESS, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for _ in range(FULL_MEMORY):
                async with session.post(url, json=body) as answer:
                    assert answer.status == 503
                    await answer.read()

    async def _answers(self) -> bool:
        try:
            return bool(await self._page("readyz"))
        except (aiohttp.ClientError, OSError):
            return False

    async def _page(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._internal_port}/{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    async def stop(self) -> int:
        """End it as a cluster would; return its status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 60)

    def kill(self) -> None:
        """End it if it still runs."""
        self.process.kill()
        self.process.wait()

    # what it takes and says

    def resident(self) -> int:
        """Bytes of memory that it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def handles(self) -> int:
        """Open files, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def busy(self) -> float:
        """Requests that wait or are under way."""
        return await self._sum(names.QUEUED) + await self._sum(names.IN_FLIGHT)

    async def cost(self) -> float:
        """US dollars for providers, by its metrics."""
        return await self._sum(names.COST)

    async def _sum(self, name: str) -> float:
        families = text_string_to_metric_families(await self._page("metrics"))
        return sum(s.value for f in families for s in f.samples if s.name == name)

    def charged(self, account: str) -> int:
        """Nano-dollars that its record says, of the month it began in and of this one."""
        record = Treasury.read((self.folder / NAME).read_text())
        pots = (record.pot(account, Window.MONTH, t) for t in (self.began, time.time()))
        return sum({id(pot): pot.charged for pot in pots}.values())

    def leaks(self) -> list[bytes]:
        """Return pieces of keys that its log has."""
        keys = [self.key, *(cloud.keys[self.number] for cloud in self.clouds)]
        return found_in(self.log.read_bytes(), keys)


def _slice(engine: Upstream) -> dict[str, Any]:
    host, port = engine.address
    labels = {"kubernetes.io/service-name": "chat"}
    metadata = {"name": engine.name, "namespace": NAMESPACE, "labels": labels}
    ports = [{"name": "http", "port": port}]
    endpoints = [{"addresses": [host]}]
    return {"kind": "EndpointSlice", "metadata": metadata, "ports": ports, "endpoints": endpoints}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
