"""Clients of several keys, one service's queue and its slots, on a virtual clock."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from overspill.api.keys import ClientKey
from overspill.api.service import DEFAULT_WHEN, SpillStrategy
from overspill.gateway.admission import Admission
from overspill.gateway.balance import Replica
from overspill.gateway.errors import RETRY_AFTER_MAX, clamp_retry
from overspill.gateway.prefix import Blocks
from overspill.gateway.spill import Candidate, Facts, Refuse, decide

ADDRESS = ("10.0.0.1", 8000)
BUSY = Facts(
    slots=4,
    free=0,
    ahead=0,
    mean_service=2.0,
    boots=(),
    waited=0.0,
    objective=1.0,
    room=True,
    queue_length=0,
    line=1.0,
    hold_limit=120.0,
    starting=False,
    broken=False,
    full=False,
    at_max=False,
    stopped=False,
    model_fault="",
    when=frozenset(DEFAULT_WHEN),
    may_leave=True,
    providers=(Candidate("p/a", 20), Candidate("p/b", 10)),
    strategy=SpillStrategy.ORDERED,
)


def key(name: str, priority: int = 0, weight: int = 1) -> ClientKey:
    return ClientKey(name, "", "team-a", ("*/*",), priority, weight)


@dataclass(eq=False)
class Client:
    """One request: when it came first, how long a replica needs for it, and what became of it."""

    world: "Clients"
    key: ClientKey
    arrived: float
    seconds: float
    started: float | None = None
    ended: float | None = None
    refused: int = 0
    blocks: Blocks = ()
    avoid: Replica | None = None

    def grant(self, replica: Replica) -> None:
        self.world.start(self, replica)

    def recheck(self) -> None:
        raise AssertionError("nothing here decides again")

    def displace(self) -> None:
        self.world.refuse(self)

    @property
    def wait(self) -> float:
        assert self.started is not None
        return self.started - self.arrived


class Clients:
    """Runs them; one that is refused comes back once, after the time that it was told."""

    def __init__(self, slots: int, limit: int = 100_000) -> None:
        self.slots, self.now = slots, 0.0
        self.clients: list[Client] = []
        self.queue = Admission(limit)
        self.queue.set_replicas({ADDRESS: slots}, 0.0)
        self._events: list[tuple[float, int, Client, Replica | None]] = []
        self._numbers = count()

    def add(self, whose: ClientKey, times: Iterable[float], seconds: Iterator[float]) -> None:
        for at in times:
            client = Client(self, whose, at, next(seconds))
            self.clients.append(client)
            self._at(at, client)

    def run(self, until: float = 1e9) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, client, replica = heapq.heappop(self._events)
            if replica is None:
                self._arrive(client)
            else:
                client.ended = self.now
                self.queue.release(replica, self.now, client.seconds, client.key)

    def start(self, client: Client, replica: Replica) -> None:
        client.started = self.now
        self._at(self.now + client.seconds, client, replica)

    def refuse(self, client: Client) -> None:
        mean, line = self.queue.mean_service_seconds, self.queue.line(client.key)
        nowhere = replace(BUSY, slots=self.slots, mean_service=mean, room=False, providers=())
        decision = decide(replace(nowhere, line=line))
        assert isinstance(decision, Refuse)
        client.refused += 1
        told = clamp_retry(decision.retry_after)
        if decision.retry_after <= RETRY_AFTER_MAX:
            self.queue.promises.make(client.key, self.now + told)
        if client.refused == 1:
            self._at(self.now + told, client)

    def _at(self, time: float, client: Client, replica: Replica | None = None) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), client, replica))

    def _arrive(self, client: Client) -> None:
        promised = self.queue.promises.redeem(client.key, self.now)
        replica = self.queue.acquire(self.now)
        if replica is not None:
            self.start(client, replica)
        elif self.queue.room(client.key, self.now, promised=promised):
            self.queue.enqueue(client)
        else:
            self.refuse(client)
