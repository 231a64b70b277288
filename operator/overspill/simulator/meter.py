"""What would be seen of a discrete-event run: the gateways' own word, and Prometheus' scrapes.

Prometheus is as old as its last scrape, its rates look back a minute and its percentiles are those
of the minute's local answers. The gateways tell their counts of now and the arrivals of the last
ten seconds. Both are what the operator's policy gets.
"""

from collections import deque
from dataclasses import dataclass

from overspill.autoscaler.signals import NO_DATA, Demand, Signals
from overspill.prometheus.samples import Value
from overspill.simulator.baselines.wva import EngineLoad

SCRAPE = 15.0  # seconds
WINDOW = 60.0  # seconds that rates look back
LIVE_WINDOW = 10.0  # seconds, of the gateways' arrivals


@dataclass(frozen=True, slots=True)
class Now:
    """Counts of a moment; the first five since the beginning."""

    time: float  # seconds
    arrived: int
    answered: int  # by replicas, to the end
    spilled: int
    within: int  # of all that were answered, those in their objective
    running: int
    spilled_running: int
    queued: int
    engines: tuple[EngineLoad, ...]  # of the ready replicas


class Meter:
    """Keeps a minute of scrapes and of latencies."""

    def __init__(self) -> None:
        """Know nothing."""
        self._scrapes: deque[Now] = deque()
        self._live: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._latencies: deque[tuple[float, float, float]] = deque()
        self._waits: deque[tuple[float, float]] = deque()
        self.signals = Signals()
        self.engines: tuple[EngineLoad, ...] = ()

    def answered(self, time: float, ttft: float, itl: float) -> None:
        """Take note of a local answer's latencies, in seconds."""
        self._latencies.append((time, ttft, itl))

    def waited(self, time: float, seconds: float) -> None:
        """Take note of how long a request waited before it went anywhere."""
        self._waits.append((time, seconds))

    def scrape(self, now: Now) -> None:
        """Let Prometheus look."""
        self._scrapes.append(now)
        while self._scrapes[0].time < now.time - WINDOW:
            self._scrapes.popleft()
        for recent in (self._latencies, self._waits):
            while recent and recent[0][0] <= now.time - WINDOW:
                recent.popleft()
        self.engines = self._highest(now)
        self.signals = self._signals(now)

    def live(self, now: Now) -> Demand:
        """Return the gateways' own word."""
        self._live.append((now.time, now.arrived))
        while len(self._live) > 2 and self._live[1][0] <= now.time - LIVE_WINDOW:
            self._live.popleft()
        since, before = self._live[0]
        return Demand(
            arrivals_rate=(now.arrived - before) / max(1.0, now.time - since),
            in_flight=now.running,
            spilled_in_flight=now.spilled_running,
            queued=now.queued,
            held=0 if now.engines else now.queued,
        )

    def _signals(self, now: Now) -> Signals:
        first = self._scrapes[0]
        span = now.time - first.time
        if span <= 0.0:  # a rate needs two scrapes
            return Signals(gateways=1.0)
        local_rate = (now.answered - first.answered) / span
        spilled_rate = (now.spilled - first.spilled) / span
        in_flight = sum(s.running for s in self._scrapes) / len(self._scrapes)
        return Signals(
            gateways=1.0,
            arrivals_rate=(now.arrived - first.arrived) / span,
            in_flight=now.running,
            spilled_in_flight=now.spilled_running,
            queued=now.queued,
            ttft_p95=p95([ttft for _, ttft, _ in self._latencies]),
            itl_p95=p95([itl for _, _, itl in self._latencies]),
            queue_wait_p95=p95([seconds for _, seconds in self._waits]),
            local_rate=local_rate,
            spilled_rate=spilled_rate,
            within_objective_rate=(now.within - first.within) / span,
            residence=in_flight / local_rate if local_rate else NO_DATA,
            engine_running=now.running,
            engine_waiting=0.0,  # requests wait in the gateways
            kv_usage=_mean([e.kv_usage for e in now.engines]),
        )

    def _highest(self, now: Now) -> tuple[EngineLoad, ...]:
        """Return each replica's highest of the minute, by its place in the order of readiness."""
        return tuple(
            EngineLoad(
                max(s.engines[n].kv_usage for s in self._scrapes if n < len(s.engines)),
                max(s.engines[n].waiting for s in self._scrapes if n < len(s.engines)),
            )
            for n in range(len(now.engines))
        )


def p95(values: list[float]) -> Value:
    """Return the 95th percentile; no data where there is none."""
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else NO_DATA


def _mean(values: list[float]) -> Value:
    return sum(values) / len(values) if values else NO_DATA
