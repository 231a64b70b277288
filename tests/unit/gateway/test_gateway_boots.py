"""When a replica that starts will be ready, as a gateway learns it from those before."""

import asyncio

from gateway_world import Object, Upstream, World, chat, endpoint_slice, queued, service, spillover
from gateway_world import until as happens

from overspill.gateway.share import Share
from overspill.gateway.spill import Boot
from overspill.gateway.state import Service, State

FOUR = {"batching": {"maxSequences": 4}}


class Cluster:
    """One service whose pods come and go at times of our choosing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state = State(lambda: self.now, queue_limit=10)
        self.state.put_service(service(engine=FOUR))

    @property
    def service(self) -> Service:
        return self.state.services["team-a/chat"]

    def pods(self, now: float, **ready: bool) -> None:
        self.now = now
        self.state.replace_slices([pods(**ready)])

    def boot(self, begin: float, seconds: float) -> None:
        name = f"pod{begin:g}"
        self.pods(begin, **{name: False})
        self.pods(begin + seconds, **{name: True})
        self.pods(begin + seconds)

    def left(self, now: float) -> list[float]:
        return [boot.ready_in for boot in self.service.boots_under_way(now)]


def pods(**ready: bool) -> Object:
    made = endpoint_slice(*((name, 8000) for name in ready))
    for endpoint, is_ready in zip(made["endpoints"], ready.values(), strict=True):
        endpoint["conditions"] = {"ready": is_ready}
    return made


def test_nothing_is_known_before_the_first_boot_has_ended() -> None:
    cluster = Cluster()
    cluster.pods(1.0, a=False)
    assert cluster.left(2.0) == []


def test_the_next_boot_takes_as_long_as_the_longest_of_the_last_five() -> None:
    cluster = Cluster()
    for begin, seconds in ((100, 90.0), (200, 30.0), (300, 20.0), (400, 40.0), (500, 25.0)):
        cluster.boot(begin, seconds)
    cluster.pods(600.0, new=False)
    assert cluster.left(650.0) == [40.0]
    cluster.boot(700, 10.0)
    cluster.pods(800.0, new=False)
    assert cluster.left(810.0) == [30.0], "the one of 90 s is forgotten"
    assert cluster.left(841.0) == [], "late, and nobody knows how long"


def test_a_replica_that_was_ready_before_does_not_start() -> None:
    cluster = Cluster()
    cluster.boot(0, 30.0)
    cluster.pods(100.0, a=False, b=False)
    cluster.pods(120.0, a=True, b=False)
    cluster.pods(125.0, a=False, b=False)
    assert cluster.left(126.0) == [4.0]


def test_boots_bring_the_share_of_this_gateway() -> None:
    cluster = Cluster()
    cluster.boot(0, 30.0)
    cluster.state.set_share(Share.among("b", ["a", "b", "c"]))
    cluster.pods(100.0, a=False, b=False)
    slots = [cluster.state.share.slots(4 * place, 4) for place in range(2)]
    assert cluster.service.boots_under_way(110.0) == (Boot(20.0, slots[0]), Boot(20.0, slots[1]))


async def test_who_waits_for_a_boot_that_does_not_come_in_time_spills(
    gateway: World, engine: Upstream
) -> None:
    async with Upstream().serving() as cloud:
        fast = {"objective": {"queueWait": {"p95": "60s"}}}
        gateway.state.put_service(service(scaling=fast, spillover=spillover()))
        gateway.provider(cloud)
        known = gateway.state.services["team-a/chat"]
        known.boots.append(0.5)
        gateway.state.replace_slices([pods(**{"new": False})])
        waiting = chat(gateway)
        await happens(lambda: queued(gateway) == 1)
        assert cloud.bodies == []
        status, headers, _ = await asyncio.wait_for(waiting, 5)
        assert (status, headers["x-overspill-reason"]) == (200, "ColdStart")
