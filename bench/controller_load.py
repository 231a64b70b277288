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
from contextlib import contextmanager
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
RESTART_SECONDS = 45.0  # what a restart writes comes at once, or after the 30 s of numbers
EDITS = 100
EDIT_LONGEST = 120.0  # seconds until one edit shows
BACKGROUND_EDITS = 10  # a second, of other services
LONGEST = 1800.0  # seconds until all services are settled
TRIES = 5  # of an edit that a write of the operator overtakes
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
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._part = b""  # of a line that is being written
        self.counts: Counter[str] = Counter()
        self.last = 0.0  # seconds since the epoch of the last write

    def read(self) -> int:
        """Take in what was logged since; return the writes so far, leases apart."""
        rotated = self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        self._read_on()  # what came before a rotation is in the file that is open
        if rotated:
            self._file.close()
            self._file, self._part = self.path.open("rb"), b""
            self._read_on()
        return self.counts.total()

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def _read_on(self) -> None:
        for line in self._file:
            self._part += line
            if self._part.endswith(b"\n"):
                if self.user.encode() in self._part:
                    self._count(json.loads(self._part))
                self._part = b""

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

    async def warm_up(self, process: Process) -> None:
        """Wait until the operator works: how long it takes to start is another question."""
        await self.cluster.create(INFERENCE_SERVICE, service("warm-up", self.namespace))
        deadline = time.monotonic() + EDIT_LONGEST
        while not _judged(await self.cluster.get(INFERENCE_SERVICE, self.namespace, "warm-up")):
            process.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"the operator does nothing within {EDIT_LONGEST:.0f} s")
            await asyncio.sleep(0.2)
        await self.quiet(process)
        await self.cluster.delete(INFERENCE_SERVICE, self.namespace, "warm-up")
        await self.quiet(process)

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
        while True:
            # Only in a pause: lists of thousands would slow down what is measured.
            await self.quiet(process)
            missing = await self._missing()
            if not missing:
                return self.audit.last
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {LONGEST:.0f} s: {missing}")

    async def quiet(self, process: Process) -> None:
        """Wait until the operator has not written for QUIET_SECONDS."""
        seen, since = self.audit.read(), time.monotonic()
        deadline = since + LONGEST
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(0.5)
            process.check()
            now = await asyncio.to_thread(self.audit.read)
            if now != seen:
                seen, since = now, time.monotonic()
            if since > deadline:
                raise SystemExit("the operator does not stop writing")

    async def _missing(self) -> str:
        """Return what is not there yet, "" when all services have their children and a status."""
        wanted = len(self.names)
        judged = 0
        async for obj in self.cluster.scan(INFERENCE_SERVICE, self.namespace, whole=True):
            judged += _judged(obj)
        if judged != wanted:
            return f"{judged} of {wanted} services have a status"
        for kind in CHILDREN.values():
            found = 0
            async for _ in self.cluster.scan(kind, self.namespace, labels=OURS):
                found += 1
            if found != wanted:
                return f"{found} {kind.plural} for {wanted} services"
        return ""

    async def edits(self, process: Process) -> list[float]:
        """Edit services one by one while others are edited too; seconds until each was applied."""
        seen: dict[str, asyncio.Event] = {}
        watching = asyncio.Event()
        watch = asyncio.create_task(self._watch(seen, watching))
        others = asyncio.create_task(self._background())
        tasks = [watch, others]
        try:
            await asyncio.wait_for(watching.wait(), 60)
            took = []
            for number in range(EDITS):
                process.check()
                took.append(await self._edit(seen, number))
                if others.done():
                    others.result()  # without its load the figures would flatter
            return took
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
        try:
            await asyncio.wait_for(applied.wait(), EDIT_LONGEST)
        except TimeoutError:
            raise SystemExit(f"{marker} of {name} not within {EDIT_LONGEST:.0f} s") from None
        return time.monotonic() - began

    async def _mark(self, name: str, marker: str) -> None:
        obj = service(name, self.namespace)
        obj["spec"]["pod"] = {"annotations": {"example.com/edit": marker}}
        for left in reversed(range(TRIES)):
            try:
                await self.cluster.apply(INFERENCE_SERVICE, obj, manager="bench")
                return
            except Conflict:
                if not left:
                    raise

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
        await load.warm_up(process)
        cpu, writes = process.cpu, audit.read()
        began = await load.create()
        seconds = await load.settled(process) - began
        cpu, writes = process.cpu - cpu, audit.read() - writes
        edits = await load.edits(process)
        await load.quiet(process)
        before = audit.read()
        await asyncio.sleep(IDLE_SECONDS)
        idle = audit.read() - before
        peak = process.peak_rss
    before = audit.read()
    with running(target, log) as process:
        await asyncio.sleep(RESTART_SECONDS + len(load.names) / 100)  # it looks at each
        await load.quiet(process)
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
