"""Where requests go among replicas: hit ratio and load of routing policies on a real trace.

    make bench-routing
    python3 bench/routing.py --traces FOLDER

The conversation trace of Mooncake (prompts as chains of 512-token blocks) is replayed on a virtual
clock into 8 simulated replicas, through 1 to 3 gateways that share nothing; a request comes to any
of them. A third of the way one replica leaves, at two thirds another joins with an empty cache.
Ours is the gateway's own code, from a request's body to the replica: parsed, hashed, admitted,
chosen.

Three gateways are three of them. --http adds the real programs, ours and two peers, each behind its
own port (bench/routing_http.py). How replicas are simulated and what is measured is said in
bench/routing_replay.py. Writes build/bench/routing.json.
"""

import argparse
import heapq
import json
import math
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xxhash import xxh3_64_intdigest

import routing_http
from overspill.gateway.admission import Admission
from overspill.gateway.balance import Address, Replica
from overspill.gateway.reports import POLL_SECONDS
from routing_replay import (
    DECODE,
    REPLICAS,
    ROOT,
    SEED,
    TRACE,
    Request,
    Row,
    World,
    moments,
    pooled,
    read,
    summary,
)

RESULT = ROOT / "build" / "bench" / "routing.json"
GATEWAYS, CACHES = (1, 2, 3), (4000, 800)
SLOTS = 10_000  # of a replica: nothing waits in the gateway, what is measured is the choice
BOUND = 1.25  # of bounded-load hashing: no replica has more than so many times the mean


class Router(Protocol):
    """One gateway's choice."""

    def place(self, addresses: Iterable[Address], now: float) -> None:
        """Take these replicas, keeping what is known of those that stay."""

    def choose(self, request: Request) -> Address:
        """Send a request."""

    def ended(self, address: Address, now: float, seconds: float) -> None:
        """Hear of an answer's end."""

    def hear(self, loads: Mapping[Address, int]) -> None:
        """Hear how many requests each replica has in flight, whoever sent them."""


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

    def hear(self, loads: Mapping[Address, int]) -> None:
        """See Router."""
        for replica in self._admission.replicas.values():
            replica.others = loads[replica.address] - replica.load


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

    def hear(self, loads: Mapping[Address, int]) -> None:
        """See Router; these count their own only, as they are."""

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
    found, waits, asked = 0, [], 0.0
    loads: Counter[Address] = Counter()
    for number, request in enumerate(requests):
        while ends and ends[0][0] <= request.at:
            now, _, gateway, address, seconds = heapq.heappop(ends)
            gateway.ended(address, now, seconds)
            loads[address] -= 1
        if changes and changes[0][0] <= request.at:
            changes.pop(0)[1](request.at)
        if request.at - asked >= POLL_SECONDS:
            asked = request.at
            for gateway in gateways:
                gateway.hear(loads)
        gateway = chance.choice(gateways)
        address = gateway.choose(request)
        cached, first_token = world.present[address].take(request)
        end = first_token + DECODE * request.answer
        heapq.heappush(ends, (end, number, gateway, address, end - request.at))
        loads[address] += 1
        found += cached
        waits.append(first_token - request.at)
    world.settle()
    return summary(requests, found, world, waits)


def rows(
    requests: Sequence[Request], gateways: Sequence[int], caches: Sequence[int], *, http: bool
) -> Iterator[Row]:
    """Yield all rows.

    :param gateways: numbers of them.
    :param caches: blocks of one replica.
    """
    for blocks in caches:
        best = {
            "pooled_hit_ratio": pooled(requests, blocks, changing=False),
            "pooled_with_changes_hit_ratio": pooled(requests, blocks, changing=True),
        }
        for count in gateways:
            common = {"gateways": count, "replicas": REPLICAS, "cache_blocks": blocks} | best
            for (router, policy), make in POLICIES.items():
                for changing in (True, False) if router == "overspill" else (True,):
                    row = {"router": router, "policy": policy, "replicas_change": changing}
                    made = [make() for _ in range(count)]
                    yield row | common | replay(requests, made, blocks, changing=changing)
            if http:
                yield from routing_http.rows(requests, common)


def table(found: Sequence[Row]) -> str:
    """Return the rows as text."""
    head = f"{'router':15}{'policy':22}{'changes':8}{'blocks':>7}{'gateways':>9}{'hits':>7}"
    lines = [head + f"{'of pooled':>10}{'of best':>8}{'max/mean':>9}{'TTFT':>7}{'p95':>7}"]
    for r in found:
        pool = r["pooled_hit_ratio"]
        best = r["pooled_with_changes_hit_ratio"] if r["replicas_change"] else pool
        lines.append(
            f"{r['router']:15}{r['policy']:22}{'yes' if r['replicas_change'] else 'no':8}"
            f"{r['cache_blocks']:7}{r['gateways']:9}{r['hit_ratio']:7.3f}"
            f"{r['hit_ratio'] / pool:10.3f}{r['hit_ratio'] / best:8.3f}"
            f"{r['max_over_mean_load']:9.2f}{r['ttft_mean_s']:7.2f}{r['ttft_p95_s']:7.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all policies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help=f"folder of {TRACE}")
    parser.add_argument("--http", action="store_true", help="real programs, too; peers installed")
    parser.add_argument("--gateways", type=int, nargs="+", default=GATEWAYS)
    parser.add_argument("--blocks", type=int, nargs="+", default=CACHES, help="of one replica")
    options = parser.parse_args()
    path = options.traces / TRACE
    if not path.exists():
        sys.exit(f"{path} is not there: give its folder with --traces")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), list[Row]()
    for row in rows(read(path), options.gateways, options.blocks, http=options.http):
        found.append(row)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    print(f"{len(found)} rows, {time.monotonic() - started:.0f} s, {platform.machine()}")


if __name__ == "__main__":
    main()
