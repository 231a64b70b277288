"""Leader election with a Lease that lives in memory and checks resourceVersions."""

import asyncio
import copy
from typing import Any

import pytest

from overspill.cluster import Conflict, Fenced, Leader, NotFound, Unavailable, lease

KEY = ("ns", "lock")


class Clock:
    """Monotonic time that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Store:
    """One Lease, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.down:
            raise Unavailable("down")
        if self.lease is None:
            raise NotFound("none")
        return copy.deepcopy(self.lease)

    async def create(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise Conflict("exists")
        return self._store(obj)

    async def replace(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        if self.down:
            raise Unavailable("down")
        if obj["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("changed")
        return self._store(obj)

    def _store(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(obj)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "time", made)
    return made


@pytest.fixture
def store() -> Store:
    return Store()


def leader(store: Store, identity: str) -> Leader:
    return Leader(store, "ns", "lock", identity)  # type: ignore[arg-type]


async def test_one_of_two_leads(store: Store, clock: Clock) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    await a._step(0)
    await b._step(0)
    assert (a.held(clock.now), b.held(clock.now), store.holder) == (True, False, "a")
    a.check()
    with pytest.raises(Fenced):
        b.check()


async def test_a_holder_that_renews_keeps_it(store: Store, clock: Clock) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    for _ in range(20):
        await a._step(0)
        await b._step(0)
        clock.now += lease.RENEW
    assert store.holder == "a"
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 0


async def test_a_lease_of_the_release_stays_its_own(store: Store, clock: Clock) -> None:
    """The chart brings it without a spec; what says whose it is survives a holder."""
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    annotations = {"meta.helm.sh/release-name": "overspill"}
    metadata = {"name": "l", "resourceVersion": "1", "labels": labels, "annotations": annotations}
    store.lease = {"metadata": metadata}
    store.version = 1
    a = leader(store, "a")
    await a._step(0)
    assert store.holder == "a"
    assert store.lease["metadata"]["labels"] == labels
    assert store.lease["metadata"]["annotations"] == annotations
    store.lease = None  # deleted, and made anew
    await a._step(0)
    assert store.lease is not None
    assert store.lease["metadata"]["labels"] == labels
    assert store.lease["metadata"]["annotations"] == annotations


async def test_a_holder_that_is_silent_stops_before_another_takes_over(
    store: Store, clock: Clock
) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    await a._step(0)
    taken = None
    for _ in range(40):
        await b._step(0)
        assert not (a.held(clock.now) and b.held(clock.now))
        if b.held(clock.now):
            taken = clock.now
            break
        clock.now += 1
    assert taken is not None
    assert taken - 1000 > lease.DURATION
    with pytest.raises(Fenced):
        a.check()
    await a._step(0)  # a wakes up: it may not take it back
    assert store.holder == "b"
    assert not a.held(clock.now)


async def test_an_outage_ends_the_leadership_in_time(store: Store, clock: Clock) -> None:
    a = leader(store, "a")
    await a._step(0)
    store.down = True
    failures = 0
    while a.held(clock.now):
        failures = await a._step(failures)
        clock.now += 1
    assert clock.now - 1000 <= lease.DURATION - lease.MARGIN + 1
    assert failures > 1
    store.down = False
    await a._step(failures)  # nobody else took it: ours again at once
    assert a.held(clock.now)


async def test_a_lost_race_is_no_error(store: Store, clock: Clock) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    seen = await asyncio.gather(a._step(0), b._step(0))
    assert seen == [0, 0]
    assert a.held(clock.now) != b.held(clock.now)


async def test_a_cancelled_leader_gives_the_lease_back(store: Store) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    running = asyncio.create_task(a.run())
    async with asyncio.timeout(5):
        await a.wait(held=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert store.holder == ""
    await b._step(0)
    assert store.holder == "b"


async def test_another_takes_it_17_seconds_after_the_last_renewal(
    store: Store, clock: Clock
) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    await a._step(0)
    renewed, clock.now = clock.now, clock.now + lease.LOOK  # the worst moment for b's first look
    while not b.held(clock.now):
        await b._step(0)
        clock.now += 0 if b.held(clock.now) else b._pause(0)
    assert clock.now - renewed <= 17


async def test_a_renewal_on_a_dead_connection_leaves_time_for_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lease.RENEW + lease.TRY_SECONDS + 1 < lease.DURATION - lease.MARGIN
    monkeypatch.setattr(lease, "TRY_SECONDS", 0.01)
    a = leader(store, "a")
    await a._step(0)

    async def silent(*_: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(store, "get", silent)
    async with asyncio.timeout(5):
        assert await a._step(0) == 1
    assert 0 < a._pause(1) <= 1


async def test_a_lease_that_is_deleted_stays_with_its_holder(store: Store, clock: Clock) -> None:
    """Until the deadline has passed the holder writes, whether there is a lease or not."""
    a, b = leader(store, "a"), leader(store, "b")
    await a._step(0)
    await b._step(0)
    store.lease = None
    await b._step(0)
    assert not b.held(clock.now)
    await a._step(0)
    assert (a.held(clock.now), store.holder) == (True, "a")


async def test_a_lease_that_goes_with_its_holder_is_taken_when_his_time_is_over(
    store: Store, clock: Clock
) -> None:
    a, b = leader(store, "a"), leader(store, "b")
    await a._step(0)
    await b._step(0)
    store.lease = None
    while not b.held(clock.now):
        assert not (a.held(clock.now) and b.held(clock.now))
        clock.now += lease.LOOK
        await b._step(0)
    assert lease.DURATION < clock.now - 1000 <= lease.DURATION + 2 * lease.LOOK
    assert store.holder == "b"
