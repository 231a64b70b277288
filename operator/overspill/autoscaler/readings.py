"""What Prometheus said last, for all services: one query per signal, repeated.

Readings older than three rounds count as none, so that a Prometheus that goes away is noticed
although its last answers are still here.

Where Prometheus records the answers by our rules, these are read: a query then costs the same
however many pods there are. A Prometheus that has recorded nothing lately, because it lacks the
rules or does not get round to them, is asked the queries themselves in the same round. One signal
that is not recorded while others are is missing, as it would be without rules.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from overspill.autoscaler.signals import NO_DATA, Signals, number
from overspill.prometheus.client import PrometheusUnavailable
from overspill.prometheus.queries import GATEWAYS, MIX, RECORDED_SUMS, SUMS, OwnMetrics, signals
from overspill.prometheus.samples import Samples

log = structlog.get_logger(__name__)

SUMS_EVERY = 30.0  # seconds between two looks at the last 24 hours, and at the last one
ROUNDS = 3  # intervals after which readings are too old


class Source(Protocol):
    """Something that answers PromQL, such as ``PrometheusClient``."""

    async def query(self, promql: str) -> Samples:
        """Run one instant query; raises PrometheusUnavailable."""


@dataclass(frozen=True)
class Outage:
    """Prometheus does not answer."""

    since: float  # seconds since the epoch
    message: str


class Readings:
    """Polls Prometheus and remembers."""

    def __init__(
        self,
        source: Source,
        interval: float,
        clock: Callable[[], float],
        own: Callable[[], frozenset[OwnMetrics]] = frozenset,
        *,
        recorded: bool = False,
    ) -> None:
        """Make a poller; ``run`` polls.

        :param interval: seconds between two rounds.
        :param clock: seconds since the epoch, never going back.
        :param own: gives the metric names of engines that are not ours, now.
        :param recorded: whether Prometheus has our recording rules.
        """
        self._source = source
        self._interval = interval
        self._clock = clock
        self._own = own
        self._recorded = recorded
        self._unrecorded = False
        self._signals: Mapping[str, Samples] = {}
        self._read_at = -float("inf")
        self._sums: Mapping[str, Samples] = {}
        self._sums_problem = ""
        self.outage: Outage | None = None

    async def run(self) -> None:
        """Poll until cancelled. Sums over a day may take long; no signal waits for them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(self._interval, self._poll_signals))
            tasks.create_task(_every(SUMS_EVERY, self._poll_sums))

    async def _poll_signals(self) -> None:
        """Ask for every signal once; a failure is remembered, not raised."""
        now = self._clock()
        try:
            self._signals = await self._read_signals()
        except PrometheusUnavailable as error:
            if self.outage is None:
                log.warning("prometheus unavailable", problem=str(error), retry=error.retry)
            self.outage = Outage(self.outage.since if self.outage else now, str(error))
            return
        if self.outage is not None:
            log.info("prometheus is back", seconds_away=round(now - self.outage.since))
        self.outage, self._read_at = None, now

    async def _poll_sums(self) -> None:
        """What costs sum up to and a usual request change slowly: the last answers stay."""
        try:
            self._sums = await self._read_sums()
            problem = ""
        except PrometheusUnavailable as error:
            problem = str(error)
        if problem and problem != self._sums_problem:  # told once, not with every look
            log.warning("costs of the last 24 hours unknown", problem=problem)
        self._sums_problem = problem

    async def _read_signals(self) -> Mapping[str, Samples]:
        own = self._own()
        if self._recorded:
            found = await self._ask(signals(own, recorded=True))
            if _any(found, GATEWAYS):  # the engines' may be of names in no rule
                self._unrecorded = False
                return found
        found = await self._ask(signals(own))
        if self._recorded and not self._unrecorded and _any(found, GATEWAYS):
            self._unrecorded = True  # told once, not with every round
            log.warning("prometheus has recorded nothing lately: asking it what the rules would")
        return found

    async def _read_sums(self) -> Mapping[str, Samples]:
        if self._recorded:
            found = await self._ask(RECORDED_SUMS)
            if _any(found, SUMS):
                return found
        return await self._ask(SUMS)

    async def _ask(self, queries: Mapping[str, str]) -> Mapping[str, Samples]:
        answers = await asyncio.gather(*(self._source.query(q) for q in queries.values()))
        return dict(zip(queries, answers, strict=True))

    @property
    def fresh(self) -> bool:
        """Whether Prometheus answered in the last rounds."""
        return self._clock() - self._read_at <= ROUNDS * self._interval

    def signals(self, key: str) -> Signals:
        """Return one service's signals; all missing when the last readings are too old.

        :param key: ``namespace/name``.
        """
        return Signals.of(key, self._signals if self.fresh else {})

    def cost(self, key: str, what: str) -> float | None:
        """Return one sum over the last 24 hours, None when it was never read.

        :param what: a name of ``queries.COSTS``.
        """
        return number(self._sums.get(what, {}).get(key, NO_DATA))

    def mix(self, key: str) -> dict[str, float | None]:
        """Return the tokens of a service's usual request, by the names of ``queries.MIX``."""
        return {name: number(self._sums.get(name, {}).get(key, NO_DATA)) for name in MIX}


def _any(found: Mapping[str, Samples], names: Iterable[str]) -> bool:
    """Whether one of these signals has a value of any service."""
    return any(found[name] for name in names)


async def _every(seconds: float, poll: Callable[[], Awaitable[None]]) -> None:
    while True:
        await poll()
        await asyncio.sleep(seconds)
