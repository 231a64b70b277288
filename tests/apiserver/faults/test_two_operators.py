"""Row 24: of two operators the second acts soon, and the first never overwrites its work."""

import signal
import time
from datetime import datetime
from itertools import count
from typing import Any

from faulty_world import FaultyWorld, figure, length
from operator_world import Operator
from proxy import Call, Faults, Proxy

# From the last renewal to the next holder: the lease lasts 15 s from when the other saw it renewed,
# and that one looks every second.
VACANT_SECONDS = 17.5
TAKEOVER_SECONDS = 20  # from a kill until the other has acted
UNSERVED_SECONDS = 30
STOPPED = length(22, 60)  # seconds; the lease lasts 15


class HeldWrites(Faults):
    """A write stays on the wire until it is released, then arrives."""

    def __init__(self) -> None:
        self.held: list[Call] = []
        self.holding = True

    def held_back(self, call: Call) -> bool:
        if not (self.holding and call.is_write):
            return False
        if not any(call is known for known in self.held):
            self.held.append(call)
        return True


class HeldCreation(HeldWrites):
    """The write that makes a Deployment stays on the wire; all else passes."""

    def held_back(self, call: Call) -> bool:
        return call.path.split("/")[-2:-1] == ["deployments"] and super().held_back(call)


def successes(proxy: Proxy, since: float) -> list[str]:
    """Writes that the API server took."""
    return [
        f"{c.method} {c.path}" for c in proxy.since(since) if c.is_write and 200 <= c.status < 300
    ]


def lease(faulty: FaultyWorld) -> dict[str, Any]:
    found = faulty.world.get("lease", "overspill-operator") or {}
    return dict(found["spec"])


def transitions(faulty: FaultyWorld) -> int:
    return int(lease(faulty)["leaseTransitions"])


def seconds(at: str) -> float:
    """Since the epoch."""
    return datetime.fromisoformat(at).timestamp()


def wake(operator: Operator) -> None:
    operator.process.send_signal(signal.SIGCONT)


def test_the_second_acts_soon_after_a_kill(faulty: FaultyWorld) -> None:
    first, _ = faulty.start()
    faulty.lead(first)
    second, _ = faulty.start("two")
    faulty.edit("chat", 1)
    faulty.world.settled()
    killed = time.monotonic()
    first.kill()
    renewed = seconds(lease(faulty)["renewTime"])
    faulty.edit("chat", 2)
    faulty.reaches("chat", 2, UNSERVED_SECONDS)
    took = time.monotonic() - killed
    assert took <= TAKEOVER_SECONDS
    assert second.leads
    assert seconds(lease(faulty)["acquireTime"]) - renewed <= VACANT_SECONDS
    figure("24", "SIGKILL of the leading operator of two", f"the second applied after {took:.0f} s")


def test_a_leader_that_sleeps_less_than_its_lease_keeps_it(faulty: FaultyWorld) -> None:
    first, _ = faulty.start()
    faulty.lead(first)
    second, _ = faulty.start("two")
    before = transitions(faulty)
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(6)  # of the 15 that the lease lasts, and a busy machine adds its own
    wake(first)
    faulty.edit("chat", 1)
    faulty.reaches("chat", 1, UNSERVED_SECONDS)
    assert first.leads
    assert not second.leads
    assert transitions(faulty) == before


def test_a_stopped_leader_overwrites_nothing_when_it_wakes(faulty: FaultyWorld) -> None:
    """Its last write is on the wire all the while, and arrives when another leads."""
    stale, its = faulty.start()
    faulty.lead(stale)
    fresh, _ = faulty.start("two")
    faulty.edit("chat", 1)
    faulty.world.settled()
    its.faults = held = HeldWrites()
    faulty.edit("chat", 2)
    faulty.world.eventually("a write is on the wire", lambda: held.held)
    stale.process.send_signal(signal.SIGSTOP)
    stopped, longest, numbers = time.monotonic(), 0.0, count(3)
    while time.monotonic() - stopped < STOPPED or not fresh.leads:
        number = next(numbers)
        faulty.edit("chat", number)
        longest = max(longest, faulty.reaches("chat", number, UNSERVED_SECONDS))
    changed = transitions(faulty)
    resumed, held.holding = time.monotonic(), False
    wake(stale)
    faulty.world.eventually("the stale one sees that it is not", lambda: not stale.leads)
    number = next(numbers)
    faulty.edit("chat", number)
    faulty.reaches("chat", number, UNSERVED_SECONDS)
    late = [call for call in held.held if call.status]
    assert len(held.held) == 1
    assert all(call.status == 409 for call in late), late
    assert successes(its, resumed) == []
    assert len([c for c in its.since(resumed) if c.is_write]) <= 1
    assert transitions(faulty) == changed  # no flapping
    assert fresh.leads
    figure(
        "24", f"the leader stopped for {STOPPED} s with a write on the wire",
        f"longest time without an operator {longest:.0f} s; "
        f"{len(held.held)} late write, answered {[c.status for c in late]}; 0 taken",
    )  # fmt: skip


def test_a_creation_that_comes_late_changes_no_count(faulty: FaultyWorld) -> None:
    """A Deployment that was missing has no version to be applied in: another leader's stays."""
    stale, its = faulty.start()
    faulty.lead(stale)
    its.faults = held = HeldCreation()
    faulty.edit("chat", 1)  # wants no replica
    faulty.world.eventually("the creation is on the wire", lambda: held.held)
    stale.process.send_signal(signal.SIGSTOP)
    fresh, _ = faulty.start("two")
    faulty.world.eventually("the second leads", lambda: fresh.leads, UNSERVED_SECONDS)
    faulty.edit("chat", 2, scaling={"minReplicas": 1, "maxReplicas": 2})
    faulty.reaches("chat", 2, UNSERVED_SECONDS)
    faulty.world.eventually(
        "one replica is wanted", lambda: faulty.world.settled()["spec"]["replicas"] == 1
    )
    resumed, held.holding = time.monotonic(), False
    faulty.world.eventually("the creation arrives", lambda: held.held[0].status)
    wake(stale)
    faulty.world.eventually("the stale one sees that it is not", lambda: not stale.leads)
    assert held.held[0].status == 409
    assert successes(its, resumed) == []
    assert faulty.shown("chat") == 2
    assert faulty.world.settled()["spec"]["replicas"] == 1
