"""Prompts that begin alike meet where that beginning is cached; bounded, and tenants apart."""

import random
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from gateway_world import Upstream, service, world
from hypothesis import given
from hypothesis import strategies as st

from overspill.gateway import prefix
from overspill.gateway.admission import Admission
from overspill.gateway.balance import HOME, SUSPECT_SECONDS, Replica, best
from overspill.gateway.call import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    Endpoint,
    parse,
)
from overspill.gateway.prefix import BLOCK, MAX_BLOCKS, Blocks, Mirror, blocks_of

ADDRESSES = [(f"10.0.0.{i}", 8000) for i in range(8)]


def hashed(
    fields: dict[str, Any], tenant: str = "team-a", endpoint: Endpoint = CHAT, model: str = "chat"
) -> Blocks:
    return blocks_of(parse(endpoint, orjson.dumps({"model": model, **fields})), tenant)


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts], **more}


def words(seed: Any, blocks: float) -> str:
    return random.Random(seed).randbytes(int(blocks * BLOCK / 2)).hex()


def equal(one: Blocks, other: Blocks) -> int:
    """How many of the first blocks are equal; none of the others may be."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    count = min(len(one), len(other)) if same is None else same
    assert not set(one[count:]) & set(other[count:])
    return count


# what is hashed


@given(common=st.integers(0, 5 * BLOCK), rest=st.integers(0, 3 * BLOCK))
def test_prompts_share_the_blocks_up_to_where_they_differ(common: int, rest: int) -> None:
    begin = words("a", 5)[:common]
    one = hashed({"prompt": begin + "x" * rest}, endpoint=COMPLETIONS)
    other = hashed({"prompt": begin + "y" * rest}, endpoint=COMPLETIONS)
    assert len(one) == len(orjson.dumps({"prompt": begin + "x" * rest})) // BLOCK
    if rest:
        assert equal(one, other) == (len('"prompt":"') + 1 + common) // BLOCK


def test_a_conversation_keeps_its_beginning_and_tools_belong_to_it() -> None:
    first = hashed(talk(words(1, 3)))
    later = hashed(talk(words(1, 3), words(2, 3)))
    assert len(first) == 3
    assert len(later) == 6
    assert equal(first, later) == 3
    tools = [{"type": "function", "function": {"name": words(3, 1)}}]
    assert equal(later, hashed(talk(words(1, 3), words(2, 3), tools=tools))) == 0


def test_what_is_no_part_of_the_prompt_changes_nothing() -> None:
    one = hashed({"temperature": 0.1, "seed": 1, **talk(words(1, 3.5)), "user": "me"})
    other = hashed({**talk(words(1, 3.5)), "seed": 2, "stream": True}, model="team-a/chat")
    assert equal(one, other) == len(one) == len(other) == 3


def test_both_apis_find_the_same_cache() -> None:
    asked = talk(words(1, 3.5), max_tokens=9)
    assert equal(hashed(asked, endpoint=MESSAGES), hashed(asked)) == 3


def test_tenants_share_nothing() -> None:
    assert equal(hashed(talk(words(1, 4))), hashed(talk(words(1, 4)), tenant="team-b")) == 0


def test_what_makes_no_text_has_no_blocks_and_the_longest_prompts_are_cut() -> None:
    assert hashed({"input": words(1, 4)}, endpoint=EMBEDDINGS) == ()
    assert hashed(talk(words(1, 4)), endpoint=COUNT_TOKENS) == ()
    assert len(hashed(talk("x" * (MAX_BLOCKS + 2) * BLOCK))) == MAX_BLOCKS


# what is remembered


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 20)), max_size=60))
def test_a_mirror_is_bounded_and_holds_whole_beginnings(asked: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "GENERATION", 30)
        mirror = Mirror()
        for conversation, split, length in asked:
            blocks = chain(conversation, split, length)
            mirror.add(blocks)
            assert mirror.held(blocks) == length
            assert len(mirror) <= 2 * (30 + 20)
        for other in (chain(c, s, 20) for c in range(5) for s in range(10)):
            held = mirror.held(other)
            assert [mirror.held((block,)) for block in other] == [1] * held + [0] * (20 - held)


def chain(conversation: int, split: int, length: int) -> Blocks:
    """A prompt that goes its own way after ``split`` blocks."""
    own = (hash((conversation, split, i)) for i in range(split, length))
    return (*(hash((conversation, i)) for i in range(min(split, length))), *own)


# what is chosen


def conversation(seed: Any, length: int = 20, shared: int = 0) -> Blocks:
    chance = random.Random(str(seed))
    return (*range(shared), *(chance.getrandbits(64) for _ in range(length)))


def admission(addresses: Iterable[tuple[str, int]] = ADDRESSES, slots: int = 1000) -> Admission:
    made = Admission(limit=10)
    made.set_replicas(dict.fromkeys(addresses, slots), now=0.0)
    return made


def sent(queue: Admission, blocks: Blocks) -> Replica:
    """Send a request that ends at once."""
    replica = queue.acquire(0.0, blocks)
    assert replica is not None
    queue.release(replica, 0.0)
    return replica


def test_short_prompts_go_where_the_fewest_requests_are() -> None:
    replicas = [Replica(a, 10, load=load) for a, load in zip(ADDRESSES, (3, 1, 2), strict=False)]
    replicas[0].mirror.add((1,))
    assert best(replicas, (1,)) is replicas[1]
    assert best(replicas) is replicas[1]


@given(seed=st.integers(), others=st.lists(st.integers(0, 30), max_size=30))
def test_a_conversation_stays_while_loads_are_equal(seed: int, others: list[int]) -> None:
    queue = admission()
    begun = sent(queue, conversation(seed, 3))
    for other in others:
        sent(queue, conversation(("other", other), 10))
    assert sent(queue, conversation(seed, 25)) is begun


def test_a_cached_beginning_gives_way_to_load() -> None:
    queue, blocks = admission(), conversation(1, 20)
    home = sent(queue, blocks)
    home.load = 20 + int(HOME) - 1
    assert sent(queue, blocks) is home
    home.load += 2
    assert sent(queue, blocks) is not home


def test_gateways_that_share_nothing_find_the_same_home() -> None:
    one, other = admission(), admission(reversed(ADDRESSES))
    for seed in range(50):
        blocks = conversation(seed)
        assert sent(one, blocks).address == sent(other, blocks).address


def test_conversations_spread_and_so_they_do_behind_a_system_prompt_of_all() -> None:
    for shared in (0, 12):
        queue = admission()
        for number in range(8):  # it became known when several came at once
            list(queue.replicas.values())[number].mirror.add(conversation("", 0, shared))
        homes = [sent(queue, conversation(seed, 5, shared)).address for seed in range(400)]
        assert {25 < homes.count(address) < 80 for address in ADDRESSES} == {True}


def test_a_system_prompt_of_all_does_not_fill_one_replica() -> None:
    queue = admission()
    for seed in range(200):  # none of them ends
        queue.acquire(0.0, conversation(seed, 5, shared=12))
    loads = sorted(r.load for r in queue.replicas.values())
    assert loads[0] > 0
    assert loads[-1] < 2.5 * 200 / 8


def test_a_replica_that_leaves_is_forgotten_and_few_move() -> None:
    queue = admission()
    before = {seed: sent(queue, conversation(seed)) for seed in range(100)}
    gone = before[0]
    gone.load += 1  # it still answers one
    queue.set_replicas(dict.fromkeys([a for a in ADDRESSES if a != gone.address], 9), now=0.0)
    for seed, replica in before.items():
        assert (sent(queue, conversation(seed)) is replica) == (replica is not gone)
    queue.set_replicas(dict.fromkeys(ADDRESSES, 9), now=0.0)
    assert queue.replicas[gone.address] is gone
    assert len(gone.mirror) == 0


def test_the_home_does_not_wait_for_a_replica_that_cannot() -> None:
    queue, blocks = admission(slots=1), conversation(1)
    home = queue.acquire(0.0, blocks)
    assert home is not None
    other = queue.acquire(0.0, blocks)
    assert other not in (None, home)
    queue.release(home, 0.0)
    queue.suspect(home, 0.0)
    assert queue.acquire(0.0, blocks) is not home
    assert queue.acquire(SUSPECT_SECONDS, blocks) is home


# on the way of a request


@pytest.mark.parametrize("caching", [True, False])
async def test_requests_of_a_conversation_meet_at_one_engine(caching: bool) -> None:
    async with Upstream().serving() as one, Upstream().serving() as other, world() as w:
        w.state.put_service(service(engine={"kvCache": {"prefixCaching": caching}}))
        w.replicas(one, other)
        for turns in range(1, 7):
            body = {"model": "chat", **talk(*(words(t, 2) for t in range(turns)))}
            assert (await w.post("/v1/chat/completions", body))[0] == 200
        assert sorted([len(one.bodies), len(other.bodies)]) == ([0, 6] if caching else [3, 3])
