"""Asks the replicas of services at work, once a second, how much they have to do.

A replica gets requests of other gateways, too, and only it knows how many, and how many of all it
really computes at a time. Nothing waits for a report: one that does not come in time is not used
(see ``Service.hear`` and ``forget``). What a page says is not trusted more than any tenant's pod:
its size is bounded, and its numbers are checked. Pages that hang hold up nobody else's: each tenant
has places of its own, and who did not answer is asked less often.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog
from prometheus_client.parser import text_string_to_metric_families

from overspill.api import metrics
from overspill.api.engine import LLAMACPP, VLLM
from overspill.api.names import DEFAULT_METRICS_PATH
from overspill.api.runtime import InferenceRuntimeSpec
from overspill.api.service import InferenceService
from overspill.gateway.balance import Replica
from overspill.gateway.concurrency import Report
from overspill.gateway.errors import ReplicaFailed, StreamBroken
from overspill.gateway.state import Service, State
from overspill.gateway.upstream import Pool

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0  # between two rounds
PAGE_SECONDS = 5.0  # for a page: llama.cpp answers between two steps, and long prompts take long
OF_TENANT = 4  # pages of one namespace that are waited for,
AT_ONCE = 128  # and of all: many tenants' pods have to hang before anybody else's is waited for
DOUBLINGS = 3  # of the pause after a page that did not come: 1, 2, 4, then 8 s
MAX_PAGE = 2**20  # bytes; vLLM's has 60 KB
# Bytes of it that are parsed: both gauges of a hundred ranks. In these no page stops all others for
# more than 15 ms; the whole of one that holds nothing else, or a label per name, takes seconds.
MAX_PARSED = 16_384
MOST = 1_000_000  # requests; more is no count of an engine's

MOST_SEQUENCES = 1024  # that anything may be taken to compute at a time, as batching.maxSequences

BUNDLED = {
    LLAMACPP: (metrics.LLAMACPP_RUNNING, metrics.LLAMACPP_WAITING),
    VLLM: (metrics.VLLM_RUNNING, metrics.VLLM_WAITING),
}


@dataclass(frozen=True, slots=True)
class Gauges:
    """Where an engine says what it does.

    :param running: the gauge of the requests that it computes.
    :param waiting: the gauge of those that wait in it.
    :param bound: requests that it may be taken to compute at a time, at most.
    """

    path: str
    running: str
    waiting: str
    bound: int


def gauges_of(
    service: InferenceService, runtimes: Mapping[str, InferenceRuntimeSpec]
) -> Gauges | None:
    """Return where a service's engine says what it does, None where it does not say both.

    An engine that is told ``maxSequences`` computes no more than that.
    """
    most = service.max_sequences
    if service.runtime in BUNDLED:
        return Gauges(DEFAULT_METRICS_PATH, *BUNDLED[service.runtime], most)
    spec = runtimes.get(f"{service.metadata.namespace}/{service.runtime}")
    if spec is None or not (spec.metrics.running and spec.metrics.waiting):
        return None
    told = any("$(MAX_SEQUENCES)" in word for word in (*spec.command, *spec.args))
    bound = most if told else max(most, MOST_SEQUENCES)
    return Gauges(spec.metrics.path, spec.metrics.running, spec.metrics.waiting, bound)


class Reports:
    """The rounds of one gateway."""

    def __init__(self, state: State, pool: Pool) -> None:
        self._state, self._pool = state, pool
        self._asked: dict[Replica, asyncio.Task[None]] = {}
        self._arrivals: dict[str, int] = {}  # of each service at the last round
        self._places = asyncio.Semaphore(AT_ONCE)
        # By namespace; who waits for a place keeps them.
        self._of_tenant = WeakValueDictionary[str, asyncio.Semaphore]()

    async def run(self) -> None:
        """Ask, round after round, until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                self.round()
        finally:
            for task in self._asked.values():
                task.cancel()

    def round(self) -> None:
        """Ask every replica of a service at work that is not asked already."""
        before, self._arrivals = self._arrivals, {}
        now = self._state.clock()
        for key, service in self._state.services.items():
            service.forget(now)
            self._arrivals[key] = service.arrivals
            gauges = gauges_of(service.resource, self._state.runtimes)
            at_work = service.in_flight or service.admission.waiting
            if gauges and (at_work or before.get(key, 0) != service.arrivals):
                for replica in service.admission.replicas.values():
                    if replica not in self._asked and replica.ask_after <= now:
                        self._ask(service, replica, gauges)

    def _ask(self, service: Service, replica: Replica, gauges: Gauges) -> None:
        places = self._of_tenant.setdefault(service.namespace, asyncio.Semaphore(OF_TENANT))
        task = asyncio.create_task(self._hear(service, replica, gauges, places))
        self._asked[replica] = task
        task.add_done_callback(lambda _: self._asked.pop(replica))

    async def _hear(
        self, service: Service, replica: Replica, gauges: Gauges, places: asyncio.Semaphore
    ) -> None:
        path = gauges.path.encode()
        try:
            async with places, self._places, asyncio.timeout(PAGE_SECONDS):
                own = replica.load
                page = await self._pool.page(replica.address, path, MAX_PAGE, PAGE_SECONDS)
            report = Report(*counts(page, (gauges.running, gauges.waiting)))
        except (ReplicaFailed, StreamBroken, TimeoutError, ValueError) as error:
            log.debug("no report", service=service.key, replica=replica.address, error=str(error))
            pause = POLL_SECONDS * 2 ** min(replica.silences, DOUBLINGS)
            replica.silences += 1
            replica.ask_after = self._state.clock() + pause
            return
        now, replica.silences = self._state.clock(), 0
        if service.admission.replicas.get(replica.address) is replica:
            service.hear(replica, report, own, gauges.bound, now)


def counts(page: bytes, names: Sequence[str]) -> list[int]:
    """Return the sum of each gauge's series, of which there is one per data-parallel rank.

    Nearly all of a page is about something else, and is not parsed.
    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

    :raises ValueError: when there is none, it is no count, or there are too many series.
    """
    either = "|".join(map(re.escape, names)).encode()
    lines = b"\n".join(re.findall(rb"(?m)^(?:%b)[ \t{].*" % either, page))
    if len(lines) > MAX_PARSED:
        raise ValueError(f"more than {MAX_PARSED} bytes of the page say what the engine does")
    values: dict[str, list[float]] = {name: [] for name in names}
    for family in text_string_to_metric_families(lines.decode(errors="replace") + "\n"):
        for sample in family.samples:
            if sample.name in values:
                values[sample.name].append(sample.value)
    return [_count(name, values[name]) for name in names]


def _count(name: str, values: list[float]) -> int:
    number = sum(values)
    if not values or not 0 <= number <= MOST:
        raise ValueError(f"the page has no count {name}")
    return round(number)
