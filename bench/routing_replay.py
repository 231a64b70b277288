"""What bench/routing.py replays: a trace, simulated replicas, one cache for all, and the measures.

A replica has an exact LRU cache of blocks, computes the missing blocks of one prompt after the
other (PREFILL per second) and then answers, all answers side by side (DECODE seconds per token).
Hit ratio: blocks found in the cache, of all. Load: blocks computed, over an even share among the
replicas that were there at the time. Pooled: one LRU of replicas × blocks on the same requests; it
loses nothing when a replica leaves. One that does lose the leaver's part, and is smaller until the
other joins, is stated beside it: no policy can do better.
"""

import json
import math
import statistics
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from overspill.gateway.balance import Address
from overspill.gateway.call import CHAT, parse
from overspill.gateway.prefix import BLOCK, Blocks, blocks_of

ROOT = Path(__file__).resolve().parents[1]
TRACE = "mooncake-conversation.jsonl"
REPLICAS = 8
PREFILL = 16.0  # blocks per second: 8,192 tokens
DECODE = 0.03  # seconds per token of an answer
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
        blocks = blocks_of(parse(CHAT, body_of(ids)), "team-a")
        requests.append(Request(entry["timestamp"] / 1000, entry["output_length"], ids, blocks))
    return requests


def body_of(ids: Sequence[int]) -> bytes:
    """Return a request whose prompt has such blocks."""
    text = "".join(f"{number:<{BLOCK}}" for number in ids)
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})


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


class Listener(Protocol):
    """A gateway that hears which replicas there are."""

    def place(self, addresses: Iterable[Address], now: float) -> None:
        """Take these replicas, keeping what is known of those that stay."""


@dataclass
class World:
    """Replicas that come and go, and the gateways before them."""

    gateways: Sequence[Listener]
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


def summary(requests: Sequence[Request], found: int, world: World, waits: Sequence[float]) -> Row:
    """Return what came out.

    :param found: blocks that were cached.
    :param waits: seconds to each first token.
    """
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
