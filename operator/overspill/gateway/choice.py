"""Where one attempt of a request goes: a slot of a replica, now or after a wait, or a provider.

The decision itself is pure (``gateway/spill.py``) and made anew whenever something changes that
matters, or the time comes at which waiting longer would break the objective.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from overspill.api.keys import ClientKey
from overspill.api.names import SpillReason
from overspill.api.service import ProviderRef
from overspill.gateway import spill
from overspill.gateway.admission import Admission
from overspill.gateway.balance import Replica
from overspill.gateway.decisions import Decisions
from overspill.gateway.errors import RETRY_AFTER_MAX, ApiError, bad_request
from overspill.gateway.exchange import Exchange
from overspill.gateway.metrics import Metrics
from overspill.gateway.prefix import Blocks
from overspill.gateway.provider import Hindrance, Permit, Provider, told
from overspill.gateway.size import size_of
from overspill.gateway.state import State
from overspill.providers.base import Unsupported

UNSUPPORTED = "unsupported_parameter"
MAX_SENT = 2  # replicas that may have read a request
MAX_UNSENT = 5  # replicas that a request may find unreachable
TIMER_SLACK = 0.005  # seconds; a timer may fire a little before its time
AGAIN = 0.1  # seconds at least until a request that waits looks at a provider's limits again
HANDOVER = 0.02  # seconds before the objective at which a request that waits still can leave


class Ticket:
    """A place in a service's queue.

    :param avoid: a replica that has refused the request.
    """

    def __init__(self, key: ClientKey, blocks: Blocks, avoid: Replica | None) -> None:
        self.key, self.blocks, self.avoid = key, blocks, avoid
        self.replica: Replica | None = None
        self.displaced = False
        self._changed = asyncio.Event()

    def grant(self, replica: Replica) -> None:
        """Take the slot that is now reserved for it."""
        self.replica = replica
        self._changed.set()

    def recheck(self) -> None:
        """Decide again."""
        self._changed.set()

    def displace(self) -> None:
        """Lose its place."""
        self.displaced = True
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a slot, a change, or the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()


@dataclass(frozen=True, slots=True)
class Overflow:
    """A provider chosen for one request.

    :param permit: to be given back to it.
    """

    provider: Provider
    model: str
    reason: SpillReason
    permit: Permit


class Chooser:
    """Finds targets.

    :param hold_limit: seconds that a request may wait for a replica.
    :param on_hold: called when a request waits because no replica is ready.
    :param decisions: remember what became of each attempt.
    :param decide: the decision itself; benchmarks compare others.
    """

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        *,
        hold_limit: float,
        on_hold: Callable[[], None],
        decisions: Decisions,
        decide: Callable[[spill.Facts], spill.Decision] = spill.decide,
    ) -> None:
        self.state, self.metrics = state, metrics
        self.decisions, self.decide = decisions, decide
        self.hold_limit, self.on_hold = hold_limit, on_hold
        self.clock = state.clock

    async def choose(self, exchange: Exchange) -> Replica | Overflow:
        """Return a replica with a slot reserved, or a provider.

        :raises ApiError: when the request is refused or has waited too long.
        """
        admission = exchange.service.admission
        key, now = exchange.key, self.clock()
        promised = bool(admission.promises) and admission.promises.redeem(key, now)
        if not _local_is_over(exchange):
            replica = admission.acquire(now, exchange.blocks, exchange.refused_by)
            if replica is not None:
                exchange.seen = None
                return self._admitted(exchange, replica)
        ticket: Ticket | None = None
        room = _had_turn(exchange) or admission.room(key, now, promised=promised)
        try:
            while True:
                target = self._decide(exchange, ticket, room)
                if target is not None:
                    return target
                if ticket is None:
                    ticket = self._enqueue(exchange, admission)
                await ticket.wait(self._until_next(exchange))
                if ticket.replica is not None:
                    replica, ticket.replica = ticket.replica, None
                    return self._admitted(exchange, replica)
                room = not ticket.displaced
        finally:
            if ticket is not None:
                admission.leave(ticket)
                if ticket.replica is not None:
                    admission.release(ticket.replica, self.clock())

    def _decide(self, exchange: Exchange, ticket: Ticket | None, room: bool) -> Overflow | None:
        """Return a provider, or None to wait.

        :raises ApiError: when it may do neither.
        """
        service = exchange.service
        if self.state.services.get(service.key) is not service:
            raise ApiError(404, "model_not_found", "the model was just removed", param="model")
        if exchange.verdict and not _second_opinion(exchange):
            raise exchange.verdict
        now = self.clock()
        usable, hindered, unable = self._providers(exchange, now)
        facts = exchange.seen = self._facts(exchange, ticket, room, usable, hindered, now)
        decision = self.decide(facts)
        if isinstance(decision, spill.Spill | spill.Refuse):
            self._note(exchange, decision)
        if isinstance(decision, spill.Spill):
            provider = self.state.providers[decision.provider]
            model = usable[decision.provider].model
            permit = provider.admit(model, exchange.expected_tokens(), now)
            return Overflow(provider, model, decision.reason, permit)
        if exchange.verdict and isinstance(decision, spill.Refuse):
            raise exchange.verdict
        if exchange.refusal is not None and not service.admission.replicas:
            raise exchange.refusal
        if unable is not None and (service.model_fault or _local_is_over(exchange)):
            raise bad_request(f"no provider can answer this: {unable}", unable.field, UNSUPPORTED)
        if isinstance(decision, spill.Refuse):
            raise _refused(exchange, decision, unable, facts, now)
        if _local_is_over(exchange):
            raise ApiError(
                503, "upstream_failed", f"no upstream answered: {exchange.last_failure}",
                retry_after=1,
            )  # fmt: skip
        return None

    def _providers(
        self, exchange: Exchange, now: float
    ) -> tuple[dict[str, ProviderRef], tuple[Hindrance, ...], Unsupported | None]:
        """Return whom the request may go to, and what hinders the others.

        Last, if it may go to nobody, what an API that may could not say. What an engine has refused
        goes nowhere that takes money for it.
        """
        service = exchange.service
        providers = service.resource.spec.spillover.providers
        if exchange.verdict or not (providers and exchange.may_leave and service.may_spill):
            return {}, (), None
        tokens = exchange.expected_tokens()
        usable, hindered = self.state.providers_for(service, exchange.tried, tokens, now)
        specs = {key: self.state.providers[key].resource.spec for key in usable}
        unable = {
            key: exchange.unsupported_by(spec.type, spec.inputs_of(usable[key].model))
            for key, spec in specs.items()
        }
        able = {key: ref for key, ref in usable.items() if unable[key] is None}
        nobody = not able and not exchange.tried
        return able, hindered, next(iter(unable.values()), None) if nobody else None

    def _facts(
        self,
        exchange: Exchange,
        ticket: Ticket | None,
        room: bool,
        usable: dict[str, ProviderRef],
        hindered: tuple[Hindrance, ...],
        now: float,
    ) -> spill.Facts:
        service, admission = exchange.service, exchange.service.admission
        waiting, spillover = admission.waiting, service.resource.spec.spillover
        slots, free, boots = *admission.slots(now), service.boots_under_way(now)
        if _local_is_over(exchange):
            slots, free, boots = 0, 0, ()
        size = size_of(exchange.call)
        key, placed = exchange.key, ticket if ticket and not ticket.displaced else None
        return spill.Facts(
            slots=slots,
            free=free,
            ahead=waiting.ahead(placed) if placed else waiting.ahead_of_next(key),
            mean_service=admission.mean_service_seconds,
            boots=boots,
            waited=now - exchange.arrived,
            objective=service.queue_wait,
            room=room,
            queue_length=len(waiting),
            line=0.0 if room else admission.line(key),
            hold_limit=self.hold_limit,
            starting=service.starting,
            broken=service.broken,
            full=service.full,
            at_max=service.at_max,
            stopped=service.stopped,
            model_fault=service.model_fault,
            when=frozenset(spillover.when),
            may_leave=exchange.may_leave and service.may_spill,
            providers=tuple(
                spill.Candidate(name, size.cost(self.state.providers[name].rates[ref.model]))
                for name, ref in usable.items()
            ),
            strategy=spillover.strategy,
            hindered=hindered,
        )

    def _enqueue(self, exchange: Exchange, admission: Admission) -> Ticket:
        ticket = Ticket(exchange.key, exchange.blocks, exchange.refused_by)
        admission.enqueue(ticket, first=_had_turn(exchange))
        admission.grant_free(self.clock())
        if not admission.replicas:
            self.on_hold()
        return ticket

    def _until_next(self, exchange: Exchange) -> float:
        """Return seconds until the passing of time alone may change the decision."""
        waited = self.clock() - exchange.arrived
        objective = exchange.service.queue_wait
        marks = [objective - HANDOVER, objective]
        if exchange.seen is not None:
            marks += [waited + max(AGAIN, h.seconds) for h in exchange.seen.hindered]
        marks += [waited + b.ready_in for b in exchange.service.boots_under_way(self.clock())]
        left = max(0.0, self.hold_limit - waited)  # also when that time came a moment ago
        return min([left, *(m - waited for m in marks if m >= waited)]) + TIMER_SLACK

    def _admitted(self, exchange: Exchange, replica: Replica) -> Replica:
        now = self.clock()
        wait = now - exchange.arrived
        self._note(exchange, spill.Local(wait))
        if exchange.wait is None:  # what an attempt that failed took was no wait for a slot
            exchange.wait = wait
            self.metrics.of(exchange.service).queue_wait.observe(wait)
            exchange.service.waits.append((now, wait))
        return replica

    def _note(self, exchange: Exchange, decision: spill.Decision) -> None:
        name, size = exchange.service.key, size_of(exchange.call)
        self.decisions.note(exchange.reply.request_id, name, size, decision, exchange.seen)


def _refused(
    exchange: Exchange,
    decision: spill.Refuse,
    unable: Unsupported | None,
    facts: spill.Facts,
    now: float,
) -> ApiError:
    """Return the error that says so; who is told when to come back will have a place then."""
    before = " and ".join(filter(None, (exchange.last_failure, exchange.unfunded)))
    why = f"; before that {before}" if before else ""
    if unable is not None:
        why += f"; meanwhile no provider can answer this: {unable}"
    if facts.hindered:
        why += f"; meanwhile no provider could be used: {told(facts.hindered)}"
    soonest = min((h.seconds for h in facts.hindered), default=math.inf)
    seconds = decision.retry_after if decision.status == 429 else min(decision.retry_after, soonest)
    error = ApiError(decision.status, decision.code, decision.message + why, retry_after=seconds)
    if decision.status == 429 and decision.retry_after <= RETRY_AFTER_MAX and error.retry_after:
        exchange.service.admission.promises.make(exchange.key, now + error.retry_after)
    return error


def _had_turn(exchange: Exchange) -> bool:
    """Whether it had a slot before, so that it need not line up for one again."""
    return exchange.wait is not None


def _second_opinion(exchange: Exchange) -> bool:
    """Whether another replica may yet be asked about a request that one has refused."""
    has_other = exchange.service.admission.has_other(exchange.refused_by)
    return has_other and not _local_is_over(exchange)


def _local_is_over(exchange: Exchange) -> bool:
    """Whether the own replicas have failed this request too often."""
    return exchange.sent_failures >= MAX_SENT or exchange.unsent_failures >= MAX_UNSENT
