"""Gateways share the slots of engines: together never more than there are, each at least one."""

import asyncio

from gateway_world import Upstream, chat, endpoint_slice, queued, service, until, world
from hypothesis import given
from hypothesis import strategies as st

from overspill.gateway.share import Share
from overspill.gateway.watch import gateways_of


def shares(names: list[str]) -> list[Share]:
    return [Share.among(name, names) for name in names]


@given(
    gateways=st.integers(1, 7), replicas=st.integers(1, 9), slots=st.integers(1, 64), data=st.data()
)
def test_the_shares_add_up(gateways: int, replicas: int, slots: int, data: st.DataObject) -> None:
    names = data.draw(st.permutations([f"uid-{i}" for i in range(gateways)]))
    parts = [
        [share.slots(i * slots, slots) for i in range(replicas)] for share in shares(list(names))
    ]
    totals = [sum(part) for part in parts]
    if slots >= gateways:
        assert sum(totals) == replicas * slots
        assert max(totals) - min(totals) <= 1
        for replica in zip(*parts, strict=True):
            assert sum(replica) == slots
            assert max(replica) - min(replica) <= 1
    else:
        assert all(part == [1] * replicas for part in parts)


def test_one_gateway_has_everything() -> None:
    assert Share.among("a", []).slots(24, 8) == 8
    assert Share().slots(0, 1) == 1


def test_who_is_not_listed_yet_counts_itself() -> None:
    assert Share.among("b", ["a", "c"]) == Share(1, 3)


def test_the_remainder_goes_round() -> None:
    first, second = shares(["a", "b"])
    assert [first.slots(3 * i, 3) for i in range(4)] == [2, 1, 2, 1]
    assert [second.slots(3 * i, 3) for i in range(4)] == [1, 2, 1, 2]


def test_a_leaving_gateway_holds_its_share_and_a_starting_one_has_none() -> None:
    raw = endpoint_slice(("10.0.0.1", 9090), ("10.0.0.2", 9090), ("10.0.0.3", 9090))
    for endpoint, ready, terminating in zip(
        raw["endpoints"], (True, False, False), (False, True, False), strict=True
    ):
        endpoint["conditions"] = {"ready": ready, "terminating": terminating}
    assert gateways_of(raw) == {"10.0.0.1:9090", "10.0.0.2:9090"}


async def test_a_gateway_uses_its_share_only_and_all_when_it_is_alone_again() -> None:
    async with Upstream().serving() as engine, world() as w:
        w.state.put_service(service(engine={"batching": {"maxSequences": 4}}))
        w.replicas(engine)
        w.state.set_share(Share.among("b", ["a", "b"]))
        engine.gate.clear()
        tasks = [chat(w) for _ in range(5)]
        await until(lambda: queued(w) == 3 and len(engine.bodies) == 2)
        w.state.set_share(Share.among("b", ["b"]))  # the other one is gone
        await until(lambda: queued(w) == 1 and len(engine.bodies) == 4)
        w.state.set_share(Share.among("b", ["a", "b", "c"]))  # what runs, runs on
        assert queued(w) == 1
        engine.gate.set()
        assert [status for status, _, _ in await asyncio.gather(*tasks)] == [200] * 5
