"""Where requests go among replicas: hit ratio and load of routing policies on a real trace.

    make bench-routing
    python3 bench/routing.py --traces FOLDER

The conversation trace of Mooncake (prompts as chains of 512-token blocks) is replayed on a virtual
clock into 8 simulated replicas, through 1 to 3 gateways that share nothing; a request comes to any
of them. A third of the way one replica leaves, at two thirds another joins with an empty cache.
Ours is the gateway's own code, from a request's body to the replica: parsed, hashed, admitted,
chosen.

A replica has an exact LRU cache of blocks, computes the missing blocks of one prompt after the
other (PREFILL per second) and then answers, all answers side by side (DECODE seconds per token).
Hit ratio: blocks found in the cache, of all. Load: blocks computed, over an even share among the
replicas that were there at the time. Pooled: one LRU of replicas × blocks on the same requests; it
loses nothing when a replica leaves. One that does lose the leaver's part, and is smaller until the
other joins, is stated beside it: no policy can do better. Ours runs without these changes, too.
Writes build/bench/routing.json.
"""

import argparse
import heapq
import json
import math
import platform
import random
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
from xxhash import xxh3_64_intdigest

from overspill.gateway.admission import Admission
from overspill.gateway.balance import Address, Replica
from overspill.gateway.call import CHAT, parse
from overspill.gateway.prefix import BLOCK, Blocks, blocks_of

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "routing.json"
TRACE = "mooncake-conversation.jsonl"
REPLICAS, GATEWAYS, CACHES = 8, (1, 2, 3), (4000, 800)
PREFILL = 16.0  # blocks per second: 8,192 tokens
DECODE = 0.03  # seconds per token of an answer
SLOTS = 10_000  # of a replica: nothing waits in the gateway, what is measured is the choice
BOUND = 1.25  # of bounded-load hashing: no replica has more than so many times the mean
SEED = 0
Row = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request of the trace.

    :param at: seconds from its begin.
    :param ids: of the prompt's blocks in the trace.
    :param blocks: what the gateway makes of its body.
    """

    at: float
    answer: int
    ids: tuple[int, ...]
    blocks: Blocks


def read(path: Path) -> list[Request]:
    """Read the trace, and let the gateway hash bodies with such prompts."""
    requests = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        ids = tuple(entry["hash_ids"])
        text = "".join(f"{number:<{BLOCK}}" for number in ids)
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        blocks = blocks_of(parse(CHAT, body), "team-a")
        requests.append(Request(entry["timestamp"] / 1000, entry["output_length"], ids, blocks))
    return requests


class Cache:
    """An exact LRU of blocks; of a prompt the last block is evicted first, as engines do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: OrderedDict[int, int] = OrderedDict()  # and where its prompt branches off

    def use(self, ids: Sequence[int]) -> int:
        """Return how many blocks were there, from the first one on; then all of them are."""
        found = next((i for i, block in enumerate(ids) if block not in self._blocks), len(ids))
        for block in reversed(ids):
            self._blocks.setdefault(block, ids[:2][-1])
            self._blocks.move_to_end(block)
        self.resize(self._limit)
        return found

    def lose(self, part: int) -> None:
        """Lose one in so many conversations."""
        for block, branch in list(self._blocks.items()):
            if branch % part == 0:
                del self._blocks[block]

    def resize(self, limit: int) -> None:
        """Hold at most so many blocks."""
        self._limit = limit
        while len(self._blocks) > limit:
            self._blocks.popitem(last=False)


@dataclass(eq=False)
class Engine:
    """A simulated replica."""

    cache: Cache
    busy_until: float = 0.0  # with prompts
    computed: int = 0  # blocks
    share: float = 0.0  # blocks that an even division would have given it

    def take(self, request: Request) -> tuple[int, float]:
        """Return the blocks that were cached, and when the first token is there."""
        found = self.cache.use(request.ids)
        missing = len(request.ids) - found
        self.computed += missing
        self.busy_until = max(self.busy_until, request.at) + missing / PREFILL
        return found, self.busy_until


class Router(Protocol):
    """One gateway's choice."""

    def place(self, addresses: Iterable[Address], now: float) -> None:
        """Take these replicas, keeping what is known of those that stay."""

    def choose(self, request: Request) -> Address:
        """Send a request."""

    def ended(self, address: Address, now: float, seconds: float) -> None:
        """Hear of an answer's end."""


class Ours:
    """The gateway's own code."""

    def __init__(self) -> None:
        self._admission = Admission(limit=0)
        self._known: dict[Address, Replica] = {}

    def place(self, addresses: Iterable[Address], now: float) -> None:
        """See Router."""
        self._admission.set_replicas(dict.fromkeys(addresses, SLOTS), now)
        self._known |= self._admission.replicas

    def choose(self, request: Request) -> Address:
        """See Router."""
        replica = self._admission.acquire(request.at, request.blocks)
        assert replica is not None  # noqa: S101
        return replica.address

    def ended(self, address: Address, now: float, seconds: float) -> None:
        """See Router."""
        self._admission.release(self._known[address], now, seconds)


@dataclass
class Simple:
    """What the other policies need."""

    random: random.Random
    addresses: list[Address] = field(default_factory=list)
    loads: dict[Address, int] = field(default_factory=dict)
    turn: int = 0

    def place(self, addresses: Iterable[Address], now: float) -> None:
        """See Router."""
        self.addresses = list(addresses)

    def choose(self, request: Request) -> Address:
        """See Router."""
        address = self.pick(request)
        self.loads[address] = self.loads.get(address, 0) + 1
        return address

    def ended(self, address: Address, now: float, seconds: float) -> None:
        """See Router."""
        self.loads[address] -= 1

    def pick(self, request: Request) -> Address:
        """Return where the request goes."""
        raise NotImplementedError


class RoundRobin(Simple):
    """One after the other."""

    def pick(self, request: Request) -> Address:
        """See Simple."""
        self.turn += 1
        return self.addresses[self.turn % len(self.addresses)]


class Random(Simple):
    """Any of them."""

    def pick(self, request: Request) -> Address:
        """See Simple."""
        return self.random.choice(self.addresses)


class BoundedLoad(Simple):
    """Consistent hashing with bounded loads, of a prompt's first two blocks, as KubeAI does it.

    https://arxiv.org/abs/1608.01350
    """

    def pick(self, request: Request) -> Address:
        """See Simple."""
        key = request.blocks[:2][-1]
        limit = math.ceil(BOUND * (1 + sum(self.loads.values())) / len(self.addresses))
        ring = sorted(self.addresses, key=lambda a: xxh3_64_intdigest(repr(a).encode(), key))
        return next(a for a in ring if self.loads.get(a, 0) < limit)


POLICIES: dict[tuple[str, str], Callable[[], Router]] = {
    ("overspill", "prefix"): Ours,
    ("simulated", "round robin"): lambda: RoundRobin(random.Random(SEED)),
    ("simulated", "random"): lambda: Random(random.Random(SEED)),
    ("simulated", "bounded-load hashing"): lambda: BoundedLoad(random.Random(SEED)),
}


@dataclass
class World:
    """Replicas that come and go, and the gateways before them."""

    gateways: list[Router]
    cache_blocks: int
    present: dict[Address, Engine] = field(default_factory=dict)
    gone: list[Engine] = field(default_factory=list)
    computed: int = 0  # blocks when the replicas changed last

    def change(self, now: float, *, join: Iterable[Address] = (), leave: int = 0) -> None:
        """Let replicas join and the first ones leave; what was computed until now is settled."""
        self.settle()
        for address in list(self.present)[:leave]:
            self.gone.append(self.present.pop(address))
        self.present |= {address: Engine(Cache(self.cache_blocks)) for address in join}
        for gateway in self.gateways:
            gateway.place(self.present, now)

    def settle(self) -> None:
        """Divide what was computed evenly among those who were there."""
        total = sum(engine.computed for engine in [*self.present.values(), *self.gone])
        for engine in self.present.values():
            engine.share += (total - self.computed) / len(self.present)
        self.computed = total

    @property
    def imbalance(self) -> float:
        """The highest load over its even share; the mean of that is 1."""
        return max(e.computed / e.share for e in [*self.present.values(), *self.gone])


def replay(
    requests: Sequence[Request], gateways: list[Router], cache_blocks: int, *, changing: bool
) -> Row:
    """Run one policy.

    :param changing: a replica leaves, and another joins.
    """
    world = World(gateways, cache_blocks)
    world.change(0.0, join=[(f"10.0.0.{i}", 8000) for i in range(REPLICAS)])
    chance = random.Random(SEED)
    steps = [
        lambda now: world.change(now, leave=1),
        lambda now: world.change(now, join=[("10.0.1.0", 8000)]),
    ]
    changes = list(zip(moments(requests), steps, strict=True)) if changing else []
    ends: list[tuple[float, int, Router, Address, float]] = []
    found, waits = 0, []
    for number, request in enumerate(requests):
        while ends and ends[0][0] <= request.at:
            now, _, gateway, address, seconds = heapq.heappop(ends)
            gateway.ended(address, now, seconds)
        if changes and changes[0][0] <= request.at:
            changes.pop(0)[1](request.at)
        gateway = chance.choice(gateways)
        address = gateway.choose(request)
        cached, first_token = world.present[address].take(request)
        end = first_token + DECODE * request.answer
        heapq.heappush(ends, (end, number, gateway, address, end - request.at))
        found += cached
        waits.append(first_token - request.at)
    world.settle()
    return {
        "requests": len(requests),
        "hit_ratio": round(found / sum(len(r.ids) for r in requests), 4),
        "max_over_mean_load": round(world.imbalance, 3),
        "ttft_mean_s": round(statistics.mean(waits), 2),
        "ttft_p95_s": round(statistics.quantiles(waits, n=20)[-1], 2),
    }


def moments(requests: Sequence[Request]) -> tuple[float, float]:
    """Return when one replica leaves, and when another joins, in seconds."""
    return requests[-1].at / 3, 2 * requests[-1].at / 3


def pooled(requests: Sequence[Request], blocks: int, *, changing: bool) -> float:
    """Return the hit ratio of one cache for all, rounded as those of the policies are.

    :param blocks: of one replica.
    """
    cache, found = Cache(REPLICAS * blocks), 0
    leaves, joins = moments(requests) if changing else (math.inf, math.inf)
    for request in requests:
        if request.at >= leaves:
            cache.lose(REPLICAS)
            cache.resize((REPLICAS - 1) * blocks)
            leaves = math.inf
        if request.at >= joins:
            cache.resize(REPLICAS * blocks)
        found += cache.use(request.ids)
    return round(found / sum(len(r.ids) for r in requests), 4)


def rows(requests: Sequence[Request]) -> Iterable[Row]:
    """Yield all rows."""
    for blocks in CACHES:
        best = {
            "pooled_hit_ratio": pooled(requests, blocks, changing=False),
            "pooled_with_changes_hit_ratio": pooled(requests, blocks, changing=True),
        }
        for (router, policy), make in POLICIES.items():
            for changing in (True, False) if router == "overspill" else (True,):
                for count in GATEWAYS:
                    gateways = [make() for _ in range(count)]
                    row = {"router": router, "policy": policy, "gateways": count}
                    row |= {"replicas": REPLICAS, "replicas_change": changing}
                    row |= {"cache_blocks": blocks} | best
                    yield row | replay(requests, gateways, blocks, changing=changing)


def table(found: Sequence[Row]) -> str:
    """Return the rows as text."""
    head = f"{'policy':22}{'changes':8}{'blocks':>7}{'gateways':>9}{'hits':>8}{'of pooled':>10}"
    lines = [head + f"{'of best':>8}{'max/mean':>9}{'TTFT':>7}{'p95':>7}"]
    lines += [
        f"{r['policy']:22}{'yes' if r['replicas_change'] else 'no':8}{r['cache_blocks']:7}"
        f"{r['gateways']:9}{r['hit_ratio']:8.3f}{r['hit_ratio'] / r['pooled_hit_ratio']:10.3f}"
        f"{r['hit_ratio'] / r['pooled_with_changes_hit_ratio']:8.3f}"
        f"{r['max_over_mean_load']:9.2f}{r['ttft_mean_s']:7.2f}{r['ttft_p95_s']:7.2f}"
        for r in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Run all policies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help=f"folder of {TRACE}")
    path = parser.parse_args().traces / TRACE
    if not path.exists():
        sys.exit(f"{path} is not there: give its folder with --traces")
    started, found = time.monotonic(), list(rows(read(path)))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    print(f"{len(found)} rows, {time.monotonic() - started:.0f} s, {platform.machine()}")


if __name__ == "__main__":
    main()
