"""The discrete-event level: every request, from its arrival to its last token.

A request goes to the ready replica with the most room. Where none has any it waits in the gateway's
queue, or goes to the provider when its expected wait exceeds the objective (DESIGN §6): the wait so
far, and its turn at the rate slots / mean service time. Replicas are billed from the order until
their last request has ended; of too many, pending ones are given back first, then the emptiest
drain. The policy sees what the operator would see (``meter``): scrapes that are up to 15 s old.

Same requests, same seed, same result. Limits: one gateway, one provider that never fails, replicas
that never do.
"""

import heapq
import math
import random
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from overspill.autoscaler.signals import Demand, Signals
from overspill.simulator.baselines.wva import EngineLoad
from overspill.simulator.engine import REFUSED, SPILLED, WAITING, Engine, Job, Replica
from overspill.simulator.meter import SCRAPE, Meter, Now, p95
from overspill.simulator.traces import Request

PRIOR_SERVICE = 1.0  # seconds, before any request has ended
TTFT, ITL = 2.0, 0.1  # seconds, the default objectives of a service
WARM_UP = 60.0  # seconds without a decision: everything begins empty, which nobody should follow
SMOOTHING = 0.05  # weight of the newest service time


@dataclass(frozen=True)
class Provider:
    """The cloud: what it costs, how fast it is, and how much it takes."""

    input_price: float  # USD per prompt token
    output_price: float  # USD per answer token
    ttft: float = 0.6  # seconds, median of a log-normal distribution
    itl: float = 0.02  # seconds
    spread: float = 0.3  # standard deviation of the TTFT's logarithm
    concurrency: int = 1000  # requests at the same time
    per_minute: int = 100_000  # requests

    def price(self, request: Request) -> float:
        """Return USD for one request."""
        return request.input_tokens * self.input_price + request.output_tokens * self.output_price


@dataclass(frozen=True)
class World:
    """What a run is about. Times in seconds."""

    engine: Engine
    provider: Provider | None  # None: nothing may leave
    hourly: float = 2.5  # USD per replica and hour
    boot: float = 120.0
    ttft: float = TTFT
    itl: float = ITL
    queue_wait: float = 1.0
    hold: float = 60.0  # longest wait before an honest error
    queue_limit: int = 1000


@dataclass(frozen=True, slots=True)
class View:
    """What a scaler sees."""

    now: float
    ready: int
    pending: int
    signals: Signals
    live: Demand
    engines: tuple[EngineLoad, ...]


class Scaler(Protocol):
    """A way to scale, asked every ``interval`` seconds."""

    interval: float

    def target(self, view: View) -> int:
        """Return how many replicas it wants from now on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A stretch of ``SCRAPE`` seconds."""

    arrived: float  # requests/s
    spilled: float  # requests/s
    ready: int
    billed: int
    cost: float  # USD since the beginning
    ttft_p95: float | None  # seconds, of local answers that began in it


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    requests: int
    spilled: int
    refused: int
    attained: int  # with TTFT and ITL in their objectives
    ttft_attained: int
    itl_attained: int
    replica_cost: float  # USD
    cloud_cost: float  # USD
    starts: int
    samples: Sequence[Sample]
    ttfts: Sequence[float]  # seconds, of all local answers

    @property
    def cost(self) -> float:
        """USD for replicas and cloud."""
        return self.replica_cost + self.cloud_cost


class Cloud:
    """A provider at work."""

    def __init__(self, provider: Provider, generator: random.Random) -> None:
        """Begin with nothing under way."""
        self._provider, self._generator = provider, generator
        self._ends: list[float] = []
        self._minute: deque[float] = deque()
        self.cost = 0.0

    def running(self, now: float) -> int:
        """Return the requests that are under way."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def takes(self, now: float) -> bool:
        """Whether its limits leave room for one more."""
        while self._minute and self._minute[0] <= now - 60:
            self._minute.popleft()
        provider = self._provider
        return len(self._minute) < provider.per_minute and self.running(now) < provider.concurrency

    def answer(self, now: float, job: Job) -> None:
        """Answer a request, and bill it."""
        provider, request = self._provider, job.request
        job.state = SPILLED
        job.first = now + provider.ttft * math.exp(
            provider.spread * self._generator.gauss(0.0, 1.0)
        )
        job.end = job.first + provider.itl * max(0, request.output_tokens - 1)
        heapq.heappush(self._ends, job.end)
        self._minute.append(now)
        self.cost += provider.price(request)


class Run:
    """The state of one simulation, and its events in the order of time."""

    def __init__(
        self, world: World, scaler: Scaler, requests: Sequence[Request], initial: int, seed: int
    ) -> None:
        """Begin with replicas that nobody pays a boot for."""
        self._world, self._scaler, self._requests = world, scaler, requests
        self._model = world.engine.model
        self._cloud = (
            Cloud(world.provider, random.Random(seed))  # noqa: S311 (no secret)
            if world.provider
            else None
        )
        self._meter = Meter()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = 0
        self._end = requests[-1].time
        self._ready = [Replica(world.engine, 0.0) for _ in range(initial)]
        self._pending: list[Replica] = []
        self._leaving: list[Replica] = []
        self._queue: deque[Job] = deque()
        self._service = PRIOR_SERVICE
        self._arrived = self._answered = self._spilled = self._refused = self._starts = 0
        self._both = self._in_ttft = self._in_itl = 0
        self._billed = 0.0  # replica-seconds of those that are gone
        self._samples: list[Sample] = []
        self._ttfts, self._recent = array("d"), list[float]()
        self._last = (0, 0)  # arrived and spilled at the last sample
        self._at(0.0, self._scrape)
        self._at(WARM_UP, self._decide)

    def run(self) -> Outcome:
        """Let everything happen."""
        requests, events = self._requests, self._events
        model = self._model
        position, count = 0, len(requests)
        while True:
            if position < count and (not events or requests[position].time <= events[0][0]):
                request = requests[position]
                position += 1
                parts = (model.weight(request), model.token(request), model.prompt(request))
                self._arrive(request.time, Job(request, parts))
            elif events:
                time, _, action = heapq.heappop(events)
                action(time)
            else:
                return self._outcome()

    def _at(self, time: float, action: Callable[[float], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, action))

    # Requests.

    def _arrive(self, now: float, job: Job) -> None:
        self._arrived += 1
        if not self._queue and (replica := self._choose(job)):
            self._begin(now, job, replica)
        else:
            self._consider(now, job)

    def _choose(self, job: Job) -> Replica | None:
        """Return the replica with the most free slots that has room."""
        best: Replica | None = None
        tokens = job.request.input_tokens + job.request.output_tokens
        for replica in self._ready:
            if (best is None or replica.running < best.running) and replica.has_room(tokens):
                best = replica
        return best

    def _begin(self, now: float, job: Job, replica: Replica) -> None:
        self._meter.waited(now, now - job.request.time)
        self._foresee(replica, replica.join(now, job))
        self._ttfts.append(job.ttft)
        self._recent.append(job.ttft)

    def _foresee(self, replica: Replica, end: float) -> None:
        """Expect the end of the batch's first request, unless the batch changes before."""
        version = replica.version

        def finish(now: float) -> None:
            if replica.version == version:
                self._finish(now, replica)

        self._at(end, finish)

    def _finish(self, now: float, replica: Replica) -> None:
        job, following = replica.finish(now)
        if following is not None:
            self._foresee(replica, following)
        self._service += SMOOTHING * (now - job.began - self._service)
        self._answered += 1
        self._meter.answered(now, job.ttft, job.itl)
        self._count(job)
        if replica.leaving and not replica.running:
            self._leaving.remove(replica)
            self._billed += min(now, self._end) - replica.ordered
        self._serve_queue(now)

    def _serve_queue(self, now: float) -> None:
        queue = self._queue
        while queue and (replica := self._choose(queue[0])):
            self._begin(now, queue.popleft(), replica)

    def _consider(self, now: float, job: Job) -> None:
        """Spill, refuse, or wait and consider again when the wait itself is too long."""
        world, waited = self._world, now - job.request.time
        late = self._expected(job, waited) > world.queue_wait
        if late and self._cloud and self._cloud.takes(now):
            self._leave_queue(job, waited)
            self._spill(now, job, self._cloud)
            return
        if waited >= world.hold or (not waited and len(self._queue) >= world.queue_limit):
            self._leave_queue(job, waited)
            job.state = REFUSED
            self._refused += 1
            return
        if not waited:
            self._queue.append(job)
        due = world.queue_wait if waited < world.queue_wait else world.hold
        again = max(job.request.time + due, now + 1e-3)

        def reconsider(now: float) -> None:
            if job.state == WAITING:
                self._consider(now, job)

        self._at(again, reconsider)

    def _leave_queue(self, job: Job, waited: float) -> None:
        """Who has waited is in the queue, near its front: all wait equally long at most."""
        if waited:
            self._queue.remove(job)

    def _expected(self, job: Job, waited: float) -> float:
        """Return the wait from arrival to a slot, as the gateway expects it."""
        slots = len(self._ready) * self._world.engine.slots
        if not slots:
            return math.inf
        turns = 1 if waited else len(self._queue) + 1
        return waited + turns * self._service / slots

    def _spill(self, now: float, job: Job, cloud: Cloud) -> None:
        self._meter.waited(now, now - job.request.time)
        cloud.answer(now, job)
        self._spilled += 1
        self._count(job)

    def _count(self, job: Job) -> None:
        """Compare with the objectives."""
        in_ttft, in_itl = job.ttft <= self._world.ttft, job.itl <= self._world.itl
        self._in_ttft += in_ttft
        self._in_itl += in_itl
        self._both += in_ttft and in_itl

    # Replicas.

    def _decide(self, now: float) -> None:
        live = self._meter.live(self._now(now))
        view = View(
            now,
            len(self._ready),
            len(self._pending),
            self._meter.signals,
            live,
            self._meter.engines,
        )
        self._scale(now, self._scaler.target(view))
        if now + self._scaler.interval <= self._end:
            self._at(now + self._scaler.interval, self._decide)

    def _scale(self, now: float, target: int) -> None:
        missing = max(0, target) - len(self._ready) - len(self._pending)
        for _ in range(missing):
            replica = Replica(self._world.engine, now)
            self._starts += 1
            self._pending.append(replica)
            self._at(now + self._world.boot, partial(self._serve, replica))
        while missing < 0 and self._pending:
            self._billed += now - self._pending.pop().ordered
            missing += 1
        for _ in range(-missing):
            replica = min(self._ready, key=lambda r: r.running)
            self._ready.remove(replica)
            replica.leaving = True
            if replica.running:
                self._leaving.append(replica)
            else:
                self._billed += now - replica.ordered

    def _serve(self, replica: Replica, now: float) -> None:
        if replica in self._pending:  # it was not given back meanwhile
            self._pending.remove(replica)
            self._ready.append(replica)
            self._serve_queue(now)

    # What is seen.

    def _now(self, now: float) -> Now:
        waiting = len(self._queue)
        share = waiting / len(self._ready) if self._ready else 0.0
        return Now(
            now,
            self._arrived,
            self._answered,
            self._spilled,
            self._both,
            sum(r.running for r in (*self._ready, *self._leaving)),
            self._cloud.running(now) if self._cloud else 0,
            waiting,
            tuple(EngineLoad(r.kv_usage, share) for r in self._ready),
        )

    def _scrape(self, now: float) -> None:
        self._meter.scrape(self._now(now))
        if now:
            self._sample(now)
        if now + SCRAPE <= self._end:
            self._at(now + SCRAPE, self._scrape)

    def _sample(self, now: float) -> None:
        arrived, spilled = self._last
        self._last = (self._arrived, self._spilled)
        percentile = p95(self._recent)
        self._recent.clear()
        self._samples.append(
            Sample(
                (self._arrived - arrived) / SCRAPE,
                (self._spilled - spilled) / SCRAPE,
                len(self._ready),
                len(self._ready) + len(self._pending) + len(self._leaving),
                self._replica_cost(now) + (self._cloud.cost if self._cloud else 0.0),
                percentile if isinstance(percentile, float) else None,
            )
        )

    def _replica_cost(self, now: float) -> float:
        alive = sum(now - r.ordered for r in (*self._ready, *self._pending, *self._leaving))
        return (self._billed + alive) * self._world.hourly / 3600

    def _outcome(self) -> Outcome:
        return Outcome(
            self._arrived,
            self._spilled,
            self._refused,
            self._both,
            self._in_ttft,
            self._in_itl,
            self._replica_cost(self._end),
            self._cloud.cost if self._cloud else 0.0,
            self._starts,
            self._samples,
            self._ttfts,
        )


def simulate(
    world: World, scaler: Scaler, requests: Sequence[Request], initial: int, seed: int = 0
) -> Outcome:
    """Run a scaler over requests.

    :param requests: at least one, in the order of time.
    :param initial: ready replicas at the start.
    :param seed: of the provider's latencies.
    """
    return Run(world, scaler, requests, initial, seed).run()
