"""What is asked of every service, as the operator reads it: one JSON line a second.

With it goes what the operator must know of money, while something is wanted or held.
A line comes at once when a request begins to wait for a first replica or for money, or a
provider's state changes. That wakes a service in less than a second, and scaling up works without
Prometheus. A service that was never asked for is left out.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from overspill.gateway.funds import Funds
from overspill.gateway.provider import Provider
from overspill.gateway.state import Service, State
from overspill.ledger.messages import Statement

log = structlog.get_logger(__name__)

REPORT_SECONDS = 1.0
SHORTEST_GAP = 0.05  # seconds between two reports, however much happens
_READINESS = ("ready", "reason", "message")
RECENT_SECONDS = 30.0  # queue waits that count for the p95


class Demand:
    """The reports of one gateway.

    :param instance: tells gateways apart: the pod's uid.
    """

    def __init__(self, state: State, instance: str, funds: Funds) -> None:
        self._state, self._instance, self._funds = state, instance, funds
        self._seq = 0
        self._stopped = False
        self._listeners: set[asyncio.Event] = set()

    def wake(self) -> None:
        """Send a report at once."""
        for listener in self._listeners:
            listener.set()

    def stop(self) -> None:
        """End all streams of reports, each with one that gives all money back."""
        self._stopped = True
        self._funds.give_back()
        self.wake()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield reports until ``stop``."""
        async with aclosing(self._moments()) as moments:
            async for _ in moments:
                yield self.report()

    async def statements(self) -> AsyncIterator[Statement]:
        """Yield what of them is about money, for a treasurer in this process."""
        async with aclosing(self._moments()) as moments:
            async for _ in moments:
                statement = self._statement()
                if statement:
                    yield statement

    async def _moments(self) -> AsyncGenerator[None]:
        """Yield when something is to be told, the last time after ``stop``."""
        changed = asyncio.Event()
        self._listeners.add(changed)
        try:
            while not self._stopped:
                changed.clear()
                yield
                await asyncio.sleep(SHORTEST_GAP)
                await _wait(changed, REPORT_SECONDS - SHORTEST_GAP)
            yield
        finally:
            self._listeners.discard(changed)

    def report(self) -> bytes:
        """Return one report as a line."""
        self._seq += 1
        now = self._state.clock()
        services = self._state.services.values()
        providers = self._state.providers.values()
        report: dict[str, Any] = {
            "instance": self._instance,
            "seq": self._seq,
            "services": {s.key: self._service(s) for s in services if s.arrivals},
            "providers": {p.key: _provider(p, now) for p in providers},
        }
        report |= self._money()
        return orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE)

    def _money(self) -> dict[str, Any]:
        """Return what the operator must know of money."""
        statement = self._statement()
        return {"ledger": statement.model_dump(mode="json")} if statement else {}

    def _statement(self) -> Statement | None:
        """Return what is to be told of money; a fault of it must not end the stream."""
        try:
            return self._funds.statement()
        except ValidationError as error:
            log.error("what is spent cannot be told; nothing spills", problem=str(error)[:500])
            return None

    def _service(self, service: Service) -> dict[str, Any]:
        queued = len(service.admission.waiting)
        unserved = 0 if service.admission.replicas else queued
        return {
            "arrivals": service.arrivals,
            "queued": queued,
            "held": unserved + service.waking,
            "in_flight": service.in_flight,
            "spilled_in_flight": sum(service.spilled.values()),
            "wait_p95": wait_p95(service, self._state.clock()),
        }


def _provider(provider: Provider, now: float) -> dict[str, Any]:
    """Return what is told of a provider."""
    readiness = dict(zip(_READINESS, provider.readiness(now), strict=True))
    return readiness | {"unknown_models": provider.unknown_models(now)}


def wait_p95(service: Service, now: float) -> float | None:
    """Return the 95th percentile of the newest queue waits in seconds, None without any."""
    waits = sorted(wait for at, wait in service.waits if now - at <= RECENT_SECONDS)
    if not waits:
        return None
    return round(waits[min(len(waits) - 1, int(len(waits) * 0.95))], 4)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
