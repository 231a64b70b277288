"""The six stages of the main job: what is done in each, and what must be seen.

Every stage sends its own requests and is over when the cluster shows what it is about.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape

from demo import screen
from demo.watcher import Sample, Watcher
from lab import platform
from lab.load import Client, Load, Sent, p95, send_one

ENOUGH_REQUESTS = 200
ENOUGH_SPILLED = 30
QUIET = 12.0  # seconds without a spilled request that count as "spill stopped"
STAGE_TIMEOUT = 240.0


@dataclass
class Stage:
    """One stage and how it went."""

    name: str
    began: float  # seconds since the epoch
    ok: bool = False
    seconds: float = 0.0
    sent: list[Sent] = field(default_factory=list)
    replicas_before: int = 0
    replicas_after: int = 0

    def result(self) -> dict[str, Any]:
        """The stage as ``result.json`` holds it."""
        answered = [s for s in self.sent if not s.failed]
        reasons = Counter(s.reason for s in answered if s.destination != "local")
        ttft = p95([s.ttft_ms for s in answered if s.ttft_ms is not None])
        return {
            "name": self.name,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "requests": len(self.sent),
            "failed": sum(s.failed for s in self.sent),
            "by_destination": dict(Counter(s.destination for s in answered)),
            "by_reason": dict(reasons),
            "ttft_p95_ms": None if ttft is None else round(ttft, 1),
            "replicas_before": self.replicas_before,
            "replicas_after": self.replicas_after,
        }


@dataclass
class Run:
    """The stages so far, the client that sends and the watcher that looks."""

    client: Client
    watcher: Watcher
    stages: list[Stage] = field(default_factory=list)

    @property
    def sent(self) -> list[Sent]:
        """All requests of all stages."""
        return [s for stage in self.stages for s in stage.sent]

    def stage(self, name: str, title: str, action: Callable[["Run", Stage], bool]) -> None:
        """Run one stage and keep how it went."""
        screen.step(title)
        stage = Stage(name, time.time(), replicas_before=self.watcher.look().ready)
        self.stages.append(stage)
        start = time.monotonic()
        happened = action(self, stage)
        stage.seconds = time.monotonic() - start
        stage.replicas_after = self.watcher.look().ready
        stage.ok = happened and not any(s.failed for s in stage.sent)
        if failed := [s for s in stage.sent if s.failed]:
            screen.note(f"[red]{len(failed)} failed[/red], first: {failed[0]}")


def _with_load(
    run: Run,
    stage: Stage,
    concurrency: int,
    what: str,
    usual: float,
    seen: Callable[[Sample, Load], tuple[bool, str]],
) -> bool:
    load = Load(run.client, stage.name)
    stage.sent = load.sent
    with load.running(concurrency):
        return screen.wait(what, usual, lambda: seen(run.watcher.now, load), STAGE_TIMEOUT)


def first_answer(run: Run, stage: Stage) -> bool:
    """One request to a service at zero: held, a replica started, answered locally."""
    sent = send_one(run.client)
    sent.stage = stage.name
    stage.sent.append(sent)
    screen.note(f"{sent.status} from {sent.destination} after {sent.ttft_ms or 0:.0f} ms")
    return stage.replicas_before == 0 and sent.destination == "local"


def scale_out(run: Run, stage: Stage) -> bool:
    """Three clients are more than one replica holds: by Prometheus' numbers a second one starts."""

    before = run.watcher.now.measured  # by an earlier run

    def known() -> tuple[bool, str]:
        return run.watcher.now.scaling == "Active", run.watcher.now.scaling

    def seen(now: Sample, load: Load) -> tuple[bool, str]:
        state = f"{now.ready} of {now.desired} replicas, {len(load.sent)} answered"
        measured = now.measured != before and now.scaling == "Active"
        return now.ready == 2 and measured, state

    # Load could raise the count before, by what the gateways tell the operator directly.
    if not screen.wait("Prometheus knows the service", 5, known, STAGE_TIMEOUT):
        return False
    return _with_load(run, stage, 3, "second replica", 12, seen)


def full(run: Run, stage: Stage) -> bool:
    """Eight clients want a third replica, for which there is no room.

    It stays Pending, or is not admitted at all where a quota is the limit.
    """

    def seen(now: Sample, load: Load) -> tuple[bool, str]:
        state = now.reason if now.full else f"{now.desired} wanted, {now.ready} ready"
        return now.full and (now.pending == 1 or now.pods == now.ready < now.desired), state

    return _with_load(run, stage, 8, "cluster full, one replica pending", 10, seen) and why(run)


def why(run: Run) -> bool:
    """Show what `overspill why` says of the count; false when that is nothing."""
    watcher = run.watcher
    asked = ("why", watcher.name, "-n", watcher.namespace)
    told = platform.overspill(watcher.kube, *asked, check=False)
    for line in (f"$ overspill {' '.join(asked)}", *told.splitlines()):
        screen.note(escape(line))
    return bool(told)


def spill(run: Run, stage: Stage) -> bool:
    """The excess goes to the cloud, the rest stays local."""

    def seen(now: Sample, load: Load) -> tuple[bool, str]:
        away = sum(s.destination not in ("", "local") for s in load.sent)
        total = len(run.sent)
        enough = away >= ENOUGH_SPILLED and away < len(load.sent) and total >= ENOUGH_REQUESTS
        return enough, f"{away} of {len(load.sent)} requests spilled, {total} in all"

    return _with_load(run, stage, 8, "requests spill", 25, seen)


def back(run: Run, stage: Stage) -> bool:
    """One client is left: nothing spills any more, the pending replica is withdrawn."""
    start = time.time()

    def seen(now: Sample, load: Load) -> tuple[bool, str]:
        away = [s.t for s in load.sent if s.destination not in ("", "local")]
        quiet = time.time() - max([*away, start])
        state = f"{quiet:.0f} s without spill, {now.pods} pods, full {now.full}"
        return quiet >= QUIET and not now.full and not now.pending and bool(load.sent), state

    return _with_load(run, stage, 1, "spill over", 70, seen)


def scale_in(run: Run, stage: Stage) -> bool:
    """Nobody asks: replicas go down to zero."""

    def seen() -> tuple[bool, str]:
        return run.watcher.now.pods == 0, f"{run.watcher.now.pods} replicas left"

    return screen.wait("no replica left", 30, seen, STAGE_TIMEOUT)


STAGES: list[tuple[str, str, Callable[[Run, Stage], bool]]] = [
    ("first_answer", "1. A first answer, from zero replicas", first_answer),
    ("scale_out", "2. Load: a second replica from Prometheus metrics", scale_out),
    ("full", "3. More load: the cluster is full", full),
    ("spill", "4. Requests spill to the cloud", spill),
    ("return", "5. Load falls: back to the own replicas", back),
    ("scale_in", "6. Silence: down to zero", scale_in),
]
