"""What the gateway knows: services, their replicas, providers with their keys, client keys.

Fed from outside (watches, or a test) by whole lists and single changes; read by requests.
It needs neither the operator nor the API server to go on serving. Every change that may
matter to a waiting request makes it decide again. One event loop, so no locks.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from overspill.api.base import InvalidObject
from overspill.api.conditions import find
from overspill.api.names import ENGINE_PORT_NAME, LABEL_SERVICE, ConditionType
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime, InferenceRuntimeSpec
from overspill.api.service import DataPolicy, InferenceService, ProviderRef
from overspill.api.values import parse_duration
from overspill.gateway.admission import Admission
from overspill.gateway.balance import Address, Replica
from overspill.gateway.concurrency import Limit, Report, learn, stands
from overspill.gateway.keys import KeyIndex
from overspill.gateway.provider import Hindrance, Provider
from overspill.gateway.share import Share
from overspill.gateway.spill import Boot

log = structlog.get_logger(__name__)

Object = dict[str, Any]

WAITS_KEPT = 512  # newest queue waits of a service, for its p95
# Seconds after which it is not used any more what a replica has said of its load, and what was
# learned of its concurrency.
FRESH_SECONDS, LEARNED_SECONDS = 5.0, 60.0
BOOTS_KEPT = 5  # newest boots of a service; the next is expected to take as long as their longest


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine pod as its EndpointSlice describes it."""

    address: Address
    uid: str
    ready: bool
    terminating: bool


@dataclass(slots=True, eq=False)
class Service:
    """An InferenceService at work."""

    resource: InferenceService
    admission: Admission
    ttft: float = 0.0  # objectives, in seconds
    itl: float = 0.0
    queue_wait: float = 0.0
    share: Share = field(default_factory=Share)  # of its replicas' slots
    endpoints: tuple[Endpoint, ...] = ()
    ever_ready: frozenset[str] = frozenset()  # uids of present pods that were ready once
    starting_since: dict[str, float] = field(default_factory=dict)  # uids of pods that start
    boots: deque[float] = field(default_factory=lambda: deque(maxlen=BOOTS_KEPT))  # in seconds
    arrivals: int = 0
    spilled: dict[str, int] = field(default_factory=dict)  # at each provider now
    waking: int = 0  # of them, because a replica has yet to start
    waits: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WAITS_KEPT))
    key: str = field(init=False)  # namespace/name; every request needs it

    def __post_init__(self) -> None:
        self.key = self.resource.key

    @property
    def namespace(self) -> str:
        """Where it lives; also the tenant it belongs to."""
        return self.resource.metadata.namespace

    @property
    def created(self) -> int:
        """When the object was made, in seconds since the epoch; 0 when it does not say."""
        text = self.resource.metadata.creation_timestamp
        return int(datetime.fromisoformat(text).timestamp()) if text else 0

    @property
    def full(self) -> bool:
        """Whether a wanted replica cannot be placed for lack of capacity."""
        capacity = self.resource.status.capacity
        return capacity is not None and capacity.full

    @property
    def at_max(self) -> bool:
        """Whether all replicas that it may have exist and are placed."""
        return (
            not self.full
            and self.resource.status.replicas >= self.resource.spec.scaling.max_replicas
        )

    @property
    def stopped(self) -> bool:
        """Whether somebody has set its replicas to 0, so that no request starts one."""
        return self.resource.spec.scaling.set_count == 0

    @property
    def model_fault(self) -> str:
        """Why no replica can load the model, "" while one is ready or may become so."""
        model = find(self.resource.status.conditions, ConditionType.MODEL_READY)
        if self.admission.replicas or model is None or model.status != "False":
            return ""
        return model.reason

    @property
    def may_spill(self) -> bool:
        """Whether its prompts may leave the cluster."""
        return self.resource.spec.spillover.data_policy is DataPolicy.ALLOWED

    @property
    def starting(self) -> bool:
        """Whether a replica is coming up that was never ready before."""
        return any(
            not e.ready and not e.terminating and e.uid not in self.ever_ready
            for e in self.endpoints
        )

    def boots_under_way(self, now: float) -> tuple[Boot, ...]:
        """Return the replicas that start, where it is known when they will be ready.

        One that takes longer than any before is late, and nobody knows how long.
        """
        if not self.boots:
            return ()
        due = (since + max(self.boots) - now for since in self.starting_since.values())
        slots = self.resource.max_sequences
        first = sum(map(self._at_a_time, self.admission.replicas))
        return tuple(
            Boot(left, self.share.slots(first + place * slots, slots))
            for place, left in enumerate(left for left in due if left > 0)
        )

    @property
    def broken(self) -> bool:
        """Whether there is a replica that was ready once (and may be so no more)."""
        return any(not e.terminating and e.uid in self.ever_ready for e in self.endpoints)

    @property
    def caches_prefixes(self) -> bool:
        """Whether one replica may have more of a prompt cached than another."""
        return len(self.admission.replicas) > 1 and (
            self.resource.spec.engine.kv_cache.prefix_caching
        )

    @property
    def in_flight(self) -> int:
        """Requests that its replicas work on for this gateway."""
        return sum(r.load for r in self.admission.replicas.values())

    def configure(self, resource: InferenceService, now: float) -> None:
        """Take a changed object. What was learned does not hold for another ``maxSequences``."""
        if resource.max_sequences != self.resource.max_sequences:
            for replica in self.admission.replicas.values():
                replica.limit = None
        self.resource = resource
        objective = resource.spec.scaling.objective
        self.ttft = parse_duration(objective.ttft.p95)
        self.itl = parse_duration(objective.itl.p95)
        self.queue_wait = parse_duration(objective.queue_wait.p95)
        self.place(self.endpoints, now)

    def place(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Take changed endpoints, then let the queue move."""
        self.endpoints = endpoints
        known = self.ever_ready
        self._time_boots(endpoints, now)
        self.ever_ready = frozenset(e.uid for e in endpoints if e.ready or e.uid in known)
        self._divide(now)

    def hear(self, replica: Replica, report: Report, own: int, bound: int, now: float) -> None:
        """Take what a replica says of its work.

        :param bound: requests that it may be taken to compute at a time, at most.
        :param own: requests that this gateway had there when it asked. Those that it has now may
            count as well; whichever are more, so that none of ours is taken for another's.
        """
        leaving = report.running * (now - replica.heard) / self.admission.mean_service_seconds
        replica.heard = now
        replica.others = max(0, report.running + report.waiting - max(own, replica.load))
        before = self._at_a_time(replica.address)
        limit, was_blocked = replica.limit or Limit(before), replica.blocked
        replica.limit = learn(limit, report, bound, now)
        replica.blocked = stands(limit, report, leaving)
        if replica.limit.value != before or replica.blocked < was_blocked:
            self._divide(now)

    def forget(self, now: float) -> None:
        """Drop what replicas have said too long ago."""
        for replica in self.admission.replicas.values():
            if now - replica.heard > FRESH_SECONDS:
                replica.others = 0
                if replica.blocked:
                    replica.blocked = False
                    self._divide(now)
            if replica.limit and now - replica.heard > LEARNED_SECONDS:
                replica.limit = None
                self._divide(now)

    def _divide(self, now: float) -> None:
        """Take this gateway's part of all slots, then let the queue move."""
        ready = [e.address for e in self.endpoints if e.ready and not e.terminating]
        slots, first = dict.fromkeys(ready, 0), 0
        for address in sorted(slots):  # as all gateways see them
            number = self._at_a_time(address)
            slots[address] = self.share.slots(first, number)
            first += number
        self.admission.set_replicas(slots, now)
        self.admission.recheck()

    def _at_a_time(self, address: Address) -> int:
        """Return how many requests a replica computes at a time, for all gateways."""
        known = self.admission.replicas.get(address)
        return known.limit.value if known and known.limit else self.resource.max_sequences

    def _time_boots(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Note when replicas begin to start, and how long it took."""
        since = self.starting_since
        alive = {e.uid: e.ready for e in endpoints if not e.terminating}
        self.boots.extend(
            now - since[uid] for uid, ready in alive.items() if ready and uid in since
        )
        self.starting_since = {
            uid: since.get(uid, now)
            for uid, ready in alive.items()
            if not ready and uid not in self.ever_ready
        }


class State:
    """All of it.

    :param clock: monotonic seconds.
    :param queue_limit: requests that may wait per service.
    """

    def __init__(self, clock: Callable[[], float], queue_limit: int) -> None:
        self.clock, self.queue_limit = clock, queue_limit
        self.services: dict[str, Service] = {}
        self.providers: dict[str, Provider] = {}
        self.runtimes: dict[str, InferenceRuntimeSpec] = {}
        self.keys = KeyIndex()
        self.generation = 0  # grows with every change of names or keys
        self.share = Share()
        self._slices: dict[str, dict[str, tuple[Endpoint, ...]]] = {}

    # services

    def put_service(self, raw: Object) -> None:
        """Add or change a service. One that does not parse keeps its last good form."""
        try:
            resource = InferenceService.parse(raw)
        except InvalidObject as error:
            log.warning("service ignored", service=raw["metadata"]["name"], error=str(error))
            return
        service = self.services.get(resource.key)
        if service is None:
            service = Service(resource, Admission(self.queue_limit), share=self.share)
            service.endpoints = self._endpoints(resource.key)
            self.services[resource.key] = service
        service.configure(resource, self.clock())
        self.generation += 1

    def remove_service(self, key: str) -> None:
        """Forget a service; what waits for it decides again, and finds it gone."""
        service = self.services.pop(key, None)
        self.generation += 1
        if service is not None:
            service.admission.recheck()

    def replace_services(self, items: Iterable[Object], namespace: str = "") -> None:
        """Know exactly these services of a namespace ("" for all)."""
        self._replace(items, namespace, self.services, self.put_service, self.remove_service)

    # engines that are not ours

    def put_runtime(self, raw: Object) -> None:
        """Add or change an InferenceRuntime; one that does not parse changes nothing."""
        try:
            runtime = InferenceRuntime.parse(raw)
        except InvalidObject as error:
            log.warning("runtime ignored", runtime=raw["metadata"]["name"], error=str(error))
            return
        self.runtimes[runtime.key] = runtime.spec

    def remove_runtime(self, key: str) -> None:
        """Forget an InferenceRuntime."""
        self.runtimes.pop(key, None)

    def replace_runtimes(self, items: Iterable[Object], namespace: str = "") -> None:
        """Know exactly these runtimes of a namespace ("" for all)."""
        self._replace(items, namespace, self.runtimes, self.put_runtime, self.remove_runtime)

    # endpoints

    def put_slice(self, raw: Object) -> None:
        """Add or change an EndpointSlice of an engine Service."""
        owner = service_of(raw)
        if owner:
            self._slices.setdefault(owner, {})[raw["metadata"]["name"]] = replicas_of(raw)
            self._place(owner)

    def remove_slice(self, raw: Object) -> None:
        """Forget an EndpointSlice."""
        owner = service_of(raw)
        slices = self._slices.get(owner, {})
        slices.pop(raw["metadata"]["name"], None)
        if not slices:
            self._slices.pop(owner, None)
        self._place(owner)

    def replace_slices(self, items: Iterable[Object], namespace: str = "") -> None:
        """Know exactly these EndpointSlices of a namespace ("" for all)."""
        before = {k for k in self._slices if _within(k, namespace)}
        for owner in before:
            del self._slices[owner]
        for raw in items:
            if owner := service_of(raw):
                self._slices.setdefault(owner, {})[raw["metadata"]["name"]] = replicas_of(raw)
                before.add(owner)
        for owner in before:
            self._place(owner)

    def set_share(self, share: Share) -> None:
        """Use another part of all that gateways share: some have come or gone."""
        if share == self.share:
            return
        log.info("share of slots and limits", rank=share.rank, of=share.of)
        self.share = share
        for service in self.services.values():
            service.share = share
            service.place(service.endpoints, self.clock())
        for provider in self.providers.values():
            provider.configure(provider.resource, share, self.clock())

    # providers

    def put_provider(self, raw: Object) -> None:
        """Add or change a provider; its key stays as it is."""
        try:
            resource = InferenceProvider.parse(raw)
        except InvalidObject as error:
            log.warning("provider ignored", provider=raw["metadata"]["name"], error=str(error))
            return
        provider = self.providers.setdefault(resource.key, Provider(resource))
        provider.configure(resource, self.share, self.clock())
        self.recheck_all()

    def remove_provider(self, key: str) -> None:
        """Forget a provider and its key."""
        self.providers.pop(key, None)

    def replace_providers(self, items: Iterable[Object], namespace: str = "") -> None:
        """Know exactly these providers of a namespace ("" for all)."""
        self._replace(items, namespace, self.providers, self.put_provider, self.remove_provider)

    def set_secret(self, key: str, secret: str, reason: str, message: str = "") -> None:
        """Say what became of a provider's key.

        :param secret: the API key, "" when it cannot be used.
        :param reason: Ready, or why not.
        """
        provider = self.providers.get(key)
        if provider is not None:
            provider.set_key(secret, reason, message, self.clock())
            self.recheck_all()

    def providers_for(
        self, service: Service, tried: Iterable[str], tokens: int, now: float
    ) -> tuple[dict[str, ProviderRef], tuple[Hindrance, ...]]:
        """Return the providers that a request may go to now, in order, and why not to the others.

        :param tried: those that it shall not go to again.
        :param tokens: with which it counts in their limits.
        """
        usable: dict[str, ProviderRef] = {}
        hindered: dict[str, Hindrance] = {}
        for ref in service.resource.spec.spillover.providers:
            key = f"{ref.namespace or service.namespace}/{ref.name}"
            if key in usable or key in tried:
                continue
            found = self._hindrance(key, service.namespace, ref.model, tokens, now)
            if found is None:
                usable[key] = ref
            else:
                hindered.setdefault(key, found)
        return usable, tuple(h for key, h in hindered.items() if key not in usable)

    def _hindrance(
        self, key: str, namespace: str, model: str, tokens: int, now: float
    ) -> Hindrance | None:
        provider = self.providers.get(key)
        if provider is None:
            return Hindrance(key, "there is no such InferenceProvider")
        if unfit := provider.unfit_for(namespace, model):
            return Hindrance(key, unfit)
        busy = provider.busy_for(model, tokens, now)
        return Hindrance(key, *busy) if busy else None

    def recheck_all(self) -> None:
        """Let every waiting request decide again."""
        for service in self.services.values():
            service.admission.recheck()

    def _endpoints(self, key: str) -> tuple[Endpoint, ...]:
        slices = self._slices.get(key, {})
        return tuple({e.address: e for part in slices.values() for e in part}.values())

    def _place(self, key: str) -> None:
        service = self.services.get(key)
        if service is not None:
            service.place(self._endpoints(key), self.clock())

    @staticmethod
    def _replace(
        items: Iterable[Object],
        namespace: str,
        known: dict[str, Any],
        put: Callable[[Object], None],
        remove: Callable[[str], None],
    ) -> None:
        present = set()
        for raw in items:
            present.add(f"{raw['metadata'].get('namespace', '')}/{raw['metadata']['name']}")
            put(raw)
        for key in set(known) - present:
            if _within(key, namespace):
                remove(key)


def _within(key: str, namespace: str) -> bool:
    return not namespace or key.startswith(f"{namespace}/")


def service_of(raw: Object) -> str:
    """Return ``namespace/name`` of the service that an EndpointSlice belongs to, or ""."""
    metadata = raw["metadata"]
    name = (metadata.get("labels") or {}).get(LABEL_SERVICE, "")
    return f"{metadata['namespace']}/{name}" if name else ""


def replicas_of(raw: Object) -> tuple[Endpoint, ...]:
    """Read an EndpointSlice of an engine Service; empty when nobody can be reached by it.

    Pods that match the Service but name none of their ports so are in a slice of their own.
    """
    return tuple(endpoint for endpoint in endpoints_of(raw) if endpoint.address[1])


def endpoints_of(raw: Object) -> tuple[Endpoint, ...]:
    """Read an EndpointSlice; port 0 where it has no port of that name, or one without a number.

    https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
    """
    ports = {p.get("name"): p.get("port") for p in raw.get("ports") or []}
    port = ports.get(ENGINE_PORT_NAME) or 0
    return tuple(_endpoint(e, port) for e in raw.get("endpoints") or [] if e.get("addresses"))


def _endpoint(raw: Object, port: int) -> Endpoint:
    conditions, address = raw.get("conditions") or {}, raw["addresses"][0]
    return Endpoint(
        address=(address, port),
        uid=(raw.get("targetRef") or {}).get("uid", address),
        ready=conditions.get("ready") is not False,
        terminating=conditions.get("terminating") is True,
    )
