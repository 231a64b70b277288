"""Services by the thousand against one operator process, and what the API server saw of it."""

import asyncio
import json
import os
import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from overspill.cluster import Cluster, Conflict
from overspill.cluster.kinds import DEPLOYMENT, INFERENCE_SERVICE
from overspill.controller.observe import CHILDREN

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
NOT_COUNTED = {"leases", "tokenreviews"}
PARALLEL = 24  # creations at a time
QUIET_SECONDS = 5.0  # without a write of the operator: it is done
IDLE_SECONDS = 60.0
EDITS = 60
BACKGROUND_EDITS = 10  # a second, of other services
LONGEST = 900.0  # seconds that anything here may take
Object = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One operator to measure: how it is started, and as whom it writes."""

    name: str
    command: tuple[str, ...]
    user: str
    env: dict[str, str]


class Audit:
    """The API server's audit log, read on from where it was."""

    def __init__(self, path: Path, user: str) -> None:
        self.path = path
        self.user = user
        self.offset = path.stat().st_size
        self.counts: Counter[str] = Counter()
        self.last = 0.0  # seconds since the epoch of the last write

    def read(self) -> int:
        """Take in what was logged since; return the writes so far, leases apart."""
        if self.path.stat().st_size < self.offset:
            self.offset = 0  # rotated
        with self.path.open() as log:
            log.seek(self.offset)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self.offset += len(line.encode())
                if self.user in line:
                    self._count(json.loads(line))
        return self.counts.total()

    def _count(self, entry: Object) -> None:
        resource = entry["objectRef"]["resource"]
        if entry["verb"] in WRITES and resource not in NOT_COUNTED:
            self.counts[f"{entry['verb']} {resource}"] += 1
            self.last = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()


class Process:
    """One running operator."""

    def __init__(self, target: Target, log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                target.command, env=os.environ | target.env, stdout=file, stderr=file
            )

    def check(self) -> None:
        """Give up when it has ended by itself."""
        if self._process.poll() is not None:
            raise SystemExit(f"the operator ended: {self._log.read_text()[-500:]}")

    @property
    def peak_rss(self) -> float:
        """MB that it held at most (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1000

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it; at once when it does not within 20 s."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(target: Target, log: Path) -> Iterator[Process]:
    """A started operator, stopped at the end."""
    process = Process(target, log)
    try:
        yield process
    finally:
        process.stop()


def service(name: str, namespace: str) -> Object:
    """A service at zero: all children, no pods."""
    spec = {
        "model": {"uri": "oci://registry.example/models/none:1"},
        "scaling": {"minReplicas": 0},
    }
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


class Load:
    """The services of one run, in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, count: int, audit: Audit) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.names = [f"chat-{number:04d}" for number in range(count)]
        self.audit = audit

    async def create(self) -> float:
        """Create all services; return when the first was sent, in seconds since the epoch."""
        began = time.time()
        names = iter(self.names)

        async def creator() -> None:
            for name in names:
                await self.cluster.create(INFERENCE_SERVICE, service(name, self.namespace))

        await asyncio.gather(*(creator() for _ in range(PARALLEL)))
        return began

    async def settled(self, process: Process) -> float:
        """Wait until each service has its children and a status and the operator writes no more.

        Returns the time of its last write, in seconds since the epoch.
        """
        deadline = time.monotonic() + LONGEST
        while not await self._all_have_status():
            process.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {LONGEST:.0f} s: all have a status")
            await asyncio.sleep(1.0)
        await self.quiet()
        for kind in CHILDREN.values():
            found = len((await self.cluster.list(kind, self.namespace, labels=OURS)).items)
            if found != len(self.names):
                raise SystemExit(f"{found} {kind.plural} for {len(self.names)} services")
        return self.audit.last

    async def quiet(self) -> None:
        """Wait until the operator has not written for QUIET_SECONDS."""
        seen, since = self.audit.read(), time.monotonic()
        deadline = since + LONGEST
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(0.5)
            now = await asyncio.to_thread(self.audit.read)
            if now != seen:
                seen, since = now, time.monotonic()
            if since > deadline:
                raise SystemExit("the operator does not stop writing")

    async def _all_have_status(self) -> bool:
        services = (await self.cluster.list(INFERENCE_SERVICE, self.namespace)).items
        return len(services) == len(self.names) and all(map(_judged, services))

    async def edits(self) -> list[float]:
        """Edit services one by one while others are edited too; seconds until each was applied."""
        seen: dict[str, asyncio.Event] = {}
        watching = asyncio.Event()
        tasks = [
            asyncio.create_task(self._watch(seen, watching)),
            asyncio.create_task(self._background()),
        ]
        try:
            await asyncio.wait_for(watching.wait(), 60)
            return [await self._edit(seen, number) for number in range(EDITS)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _edit(self, seen: dict[str, asyncio.Event], number: int) -> float:
        name = self.names[number % (len(self.names) // 2)]
        marker = f"edit-{number}"
        applied = seen[marker] = asyncio.Event()
        began = time.monotonic()
        await self._mark(name, marker)
        await asyncio.wait_for(applied.wait(), LONGEST)
        return time.monotonic() - began

    async def _mark(self, name: str, marker: str) -> None:
        obj = service(name, self.namespace)
        obj["spec"]["pod"] = {"annotations": {"example.com/edit": marker}}
        with suppress(Conflict):  # a status write came between; the next edit follows anyway
            await self.cluster.apply(INFERENCE_SERVICE, obj, manager="bench")

    async def _background(self) -> None:
        number = 0
        while True:
            number += 1
            name = random.choice(self.names[len(self.names) // 2 :])
            await self._mark(name, f"other-{number}")
            await asyncio.sleep(1 / BACKGROUND_EDITS)

    async def _watch(self, seen: dict[str, asyncio.Event], watching: asyncio.Event) -> None:
        async for event in self.cluster.watch(DEPLOYMENT, self.namespace, labels=OURS):
            watching.set()
            for obj in (event.obj,) if event.obj else ():
                metadata = obj["spec"]["template"]["metadata"]
                marker = (metadata.get("annotations") or {}).get("example.com/edit", "")
                if marker in seen:
                    seen[marker].set()


OURS = "app.kubernetes.io/managed-by=overspill"


def _judged(obj: Object) -> bool:
    status = obj.get("status") or {}
    return bool(status.get("conditions")) and (
        status.get("observedGeneration") == obj["metadata"]["generation"]
    )


async def measure(target: Target, load: Load, log: Path) -> Object:
    """All figures of one target with one number of services."""
    audit = load.audit
    with running(target, log) as process:
        began = await load.create()
        seconds = await load.settled(process) - began
        cpu, writes = process.cpu, audit.read()
        edits = await load.edits()
        await load.quiet()
        before = audit.read()
        await asyncio.sleep(IDLE_SECONDS)
        idle = audit.read() - before
        peak = process.peak_rss
    before = audit.read()
    with running(target, log) as process:
        await asyncio.sleep(min(30.0, 5 + len(load.names) / 50))  # it looks at each once
        await load.quiet()
        peak = max(peak, process.peak_rss)
    return {
        "target": target.name,
        "services": len(load.names),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "writes_per_service": round(writes / len(load.names), 2),
        "peak_rss_mb": round(peak),
        "edit_p99_ms": round(1000 * _p99(edits)),
        "idle_writes": idle,
        "restart_writes": audit.read() - before,
    }


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
