"""What the gateways say by themselves: one stream of reports from each, merged.

A gateway's ``/demand`` sends newline-delimited JSON: a full report at once, then every second, and
immediately when a request begins to wait for a replica. A stream that is silent for five seconds
is opened again, with back-off; what it said before no longer counts. Numbers of several gateways
are summed. Where one of them is silent, the sum is a lower bound and marked so.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog
from pydantic import BaseModel, Field, ValidationError

from overspill.autoscaler.signals import Demand
from overspill.cluster.backoff import backoff
from overspill.ledger.messages import Statement

log = structlog.get_logger(__name__)

SILENCE = 5.0  # seconds without a report after which a gateway's word no longer counts
RATE_WINDOW = 10.0  # seconds over which arrivals are counted
SPACING = 0.5  # seconds between two reports that are both kept
RESCAN = 0.5  # seconds between two looks at the addresses
CONNECT = 3.0  # seconds
MAX_REPORT = 8 * 2**20  # bytes of one report; 1,000 services take 150 KiB


class ServiceReport(BaseModel):
    """One service at one gateway. The three counts are disjoint."""

    arrivals: int = Field(ge=0)  # since the gateway started
    queued: int = Field(0, ge=0)
    held: int = Field(0, ge=0)  # of the queued ones
    in_flight: int = Field(0, ge=0)  # at local replicas
    spilled_in_flight: int = Field(0, ge=0)
    wait_p95: float | None = Field(None, ge=0, allow_inf_nan=False)  # seconds


class ProviderReport(BaseModel):
    """Whether a gateway can use a provider."""

    ready: bool
    reason: str
    message: str = ""
    unknown_models: frozenset[str] = frozenset()  # that it says it does not have


class Report(BaseModel):
    """One line of the stream."""

    instance: str
    services: dict[str, ServiceReport] = Field(default_factory=dict)
    providers: dict[str, ProviderReport] = Field(default_factory=dict)
    ledger: Statement | None = None  # while money for providers is wanted or held


@dataclass
class Voice:
    """The reports of one gateway in the last seconds, oldest first."""

    reports: deque[tuple[float, Report]] = field(default_factory=deque)
    heard: int = 0  # reports ever

    def add(self, now: float, report: Report) -> None:
        """Keep a report; a gateway that was replaced begins anew."""
        if self.reports and self.reports[-1][1].instance != report.instance:
            self.reports.clear()
        if len(self.reports) > 1 and self.reports[-1][0] - self.reports[-2][0] < SPACING:
            self.reports.pop()
        self.reports.append((now, report))
        self.heard += 1
        while self.reports[0][0] < now - RATE_WINDOW:
            self.reports.popleft()

    def latest(self, now: float) -> Report | None:
        """Return the last report, None when it is too old."""
        if self.reports and now - self.reports[-1][0] <= SILENCE:
            return self.reports[-1][1]
        return None

    def rate(self, key: str) -> float:
        """Return arrivals per second. A service is left out of reports before its first."""
        (then, old), (now, new) = self.reports[0], self.reports[-1]
        before, after = old.services.get(key), new.services.get(key)
        if now <= then or after is None:
            return 0.0
        return max(0, after.arrivals - (before.arrivals if before else 0)) / (now - then)


class Gateways:
    """Listens to every gateway."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[str]],
        token_file: Path | None,
        *,
        clock: Callable[[], float],
        on_held: Callable[[str], None],
        on_statement: Callable[[str, Statement], None] = lambda address, statement: None,
    ) -> None:
        """Make a listener; ``run`` opens the streams.

        :param addresses: gives each gateway's ``host:port`` at this moment.
        :param token_file: our service account token for the gateways; read at each connection.
        :param clock: seconds, never going back.
        :param on_held: called with ``namespace/name`` when a report says that a request waits
            because no replica is ready.
        :param on_statement: called with what a gateway says of money, and its ``host:port``.
        """
        self._addresses = addresses
        self._token_file = token_file
        self._clock = clock
        self._on_held = on_held
        self._on_statement = on_statement
        self._voices: dict[str, Voice] = {}

    async def run(self) -> None:
        """Keep one stream to each address until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
        streams: dict[str, asyncio.Task[None]] = {}
        self._voices.clear()  # of an earlier run: nobody listens to them any more
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=MAX_REPORT // 2) as session:
            try:
                while True:
                    self._rescan(session, streams)
                    await asyncio.sleep(RESCAN)
            finally:
                for stream in streams.values():
                    stream.cancel()
                await asyncio.gather(*streams.values(), return_exceptions=True)

    def _rescan(
        self, session: aiohttp.ClientSession, streams: dict[str, asyncio.Task[None]]
    ) -> None:
        wanted = set(self._addresses())
        for address in streams.keys() - wanted:
            streams.pop(address).cancel()
            self._voices.pop(address, None)
        for address in wanted - streams.keys():
            self._voices[address] = Voice()
            streams[address] = asyncio.create_task(self._follow(session, address))

    async def _follow(self, session: aiohttp.ClientSession, address: str) -> None:
        """Read one gateway's stream for ever."""
        voice, failures = self._voices[address], 0
        while True:
            heard = voice.heard
            try:
                await self._read(session, address, voice)
                problem = "the gateway ended the stream"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
            except ValueError as error:
                problem = f"not a report: {_first_line(error)}"
            except Exception as error:  # or nobody would ever listen to this gateway again
                problem = f"{type(error).__name__}: {error}"
                log.exception("demand stream failed", gateway=address)
            failures = 1 if voice.heard > heard else failures + 1
            log.warning("demand stream broken", gateway=address, problem=problem, tries=failures)
            await asyncio.sleep(backoff(failures, first=0.5, longest=10.0))

    async def _read(self, session: aiohttp.ClientSession, address: str, voice: Voice) -> None:
        headers = await asyncio.to_thread(bearer, self._token_file)
        url = f"http://{address}/demand"
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise aiohttp.ClientError(_refusal(response.status))
            async for line in response.content:
                report = Report.model_validate_json(line)
                voice.add(self._clock(), report)
                if report.ledger is not None:
                    self._on_statement(address, report.ledger)
                for key, service in report.services.items():
                    if service.held:
                        self._on_held(key)

    @property
    def expected(self) -> bool:
        """Whether there are gateways, though none may have spoken yet."""
        return bool(self._voices)

    def demand(self, key: str) -> Demand | None:
        """Return one service's demand over all gateways; None when no gateway has spoken.

        :param key: ``namespace/name``.
        """
        now = self._clock()
        heard = [(v, r) for v in self._voices.values() if (r := v.latest(now)) is not None]
        if not heard:
            return None
        parts = [s for _, r in heard if (s := r.services.get(key)) is not None]
        waits = [p.wait_p95 for p in parts if p.wait_p95 is not None]
        return Demand(
            arrivals_rate=sum(v.rate(key) for v, _ in heard),
            in_flight=float(sum(p.in_flight for p in parts)),
            spilled_in_flight=float(sum(p.spilled_in_flight for p in parts)),
            queued=float(sum(p.queued for p in parts)),
            held=float(sum(p.held for p in parts)),
            wait_p95=max(waits, default=None),
            complete=len(heard) == len(self._voices),
        )

    def providers(self) -> dict[str, ProviderReport]:
        """Return each provider's state: ready where one gateway says so.

        A model is unknown where one says so: the others may not have asked for it.
        """
        now = self._clock()
        merged: dict[str, ProviderReport] = {}
        for voice in self._voices.values():
            report = voice.latest(now)
            for key, provider in report.providers.items() if report else ():
                before = merged.get(key, provider)
                unknown = before.unknown_models | provider.unknown_models
                best = before if before.ready else provider
                merged[key] = best.model_copy(update={"unknown_models": unknown})
        return merged


def bearer(token_file: Path | None) -> Mapping[str, str]:
    """Return the headers that prove who we are to a gateway; reads the file."""
    if token_file is None:
        return {}
    return {"Authorization": f"Bearer {token_file.read_text().strip()}"}


def _refusal(status: int) -> str:
    if status in (401, 403):
        return f"HTTP {status}: the gateway does not accept the operator's token"
    return f"HTTP {status}"


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)[:200]
