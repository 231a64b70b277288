"""From a request to its answer: a slot of a replica, or a provider, or an honest error.

Every attempt ends before its first byte (then another target may be tried) or with the
request. A request that kills a replica is not tried on every replica: at most two may have
read it (twice, if it closed a kept connection just then). A slot is given back however an
attempt ends; a client that leaves cancels the task, and with it the upstream's work.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import structlog

from overspill.api.names import DESTINATION_LOCAL, SpillReason
from overspill.api.sse import parse
from overspill.api.values import parse_duration
from overspill.gateway.admission import Admission
from overspill.gateway.balance import SUSPECT_SECONDS, Replica
from overspill.gateway.call import COUNT_TOKENS, Call, engine_body
from overspill.gateway.charge import Charge, accounts_of, most
from overspill.gateway.choice import MAX_SENT, Chooser, Overflow
from overspill.gateway.errors import (
    ApiError,
    AttemptFailed,
    EngineRefused,
    ProviderFailed,
    ReplicaFailed,
    StreamBroken,
)
from overspill.gateway.exchange import Exchange
from overspill.gateway.funds import Funds, NoFunds
from overspill.gateway.losses import REMEMBERED_SECONDS, Losses, fingerprint_of
from overspill.gateway.metrics import Metrics
from overspill.gateway.provider import Permit, Provider
from overspill.gateway.relay import NotBegun, Relay
from overspill.gateway.separation import cache_fields
from overspill.gateway.size import total
from overspill.gateway.upstream import Pool, UpstreamConnection
from overspill.ledger.prices import Usage, worst_case
from overspill.ledger.purse import Refusal
from overspill.providers.base import (
    MAX_ANSWER,
    Account,
    Answer,
    Fault,
    ProviderError,
    ProviderUnusable,
    RequestRefused,
)
from overspill.providers.client import ProviderClient, in_clients_form

log = structlog.get_logger(__name__)

# Seconds. An engine answers at once while it computes, but a unary answer comes as a whole.
STREAM_FIRST_BYTE, UNARY_FIRST_BYTE, IDLE = 300.0, 900.0, 60.0
# A provider's firstByte speaks of the first content. Of a unary answer nothing is seen before
# all of it is made; cut too early, it would be paid for and made again elsewhere. So as many
# seconds are added as a slow model may need for the tokens that were asked for.
GENERATION_SECONDS, TOKEN_SECONDS = 600.0, 0.2
# Seconds between two moments at which all who wait decide again because a provider has room. Each
# looks at the whole queue, so with every release it would cost the square of the queue.
GATHER = 0.05
REQUEST_REFUSED = "RequestRefused"  # counted among a provider's failed attempts


class Dispatcher:
    """Runs requests.

    :param chooser: finds each attempt's target.
    :param on_hold: called when a request is answered elsewhere because no replica is ready.
    """

    def __init__(
        self,
        chooser: Chooser,
        metrics: Metrics,
        pool: Pool,
        client: ProviderClient,
        funds: Funds,
        *,
        on_hold: Callable[[], None],
    ) -> None:
        self.chooser, self.metrics, self.pool = chooser, metrics, pool
        self.client, self.funds = client, funds
        self.on_hold, self.clock = on_hold, chooser.clock
        self.losses = Losses()
        self._told, self._telling = -GATHER, False

    async def run(self, exchange: Exchange) -> None:
        """Answer a request.

        :raises ApiError: when nothing was answered.
        :raises StreamBroken: when an answer had begun.
        """
        exchange.service.arrivals += 1
        self.metrics.of(exchange.service).arrivals.inc()
        if exchange.call.stream:
            exchange.reply.keep_alive(self.pool.loop)
        self._recall(exchange)
        while True:
            target = await self.chooser.choose(exchange)
            try:
                if isinstance(target, Replica):
                    await self._local(exchange, target)
                else:
                    await self._overflow(exchange, target)
                return
            except NoFunds as failure:
                self._unfunded(exchange, failure)
            except AttemptFailed as failure:
                exchange.last_failure = str(failure)
                series = self.metrics.of(exchange.service).to(exchange.destination)
                series.failed_attempt(failure.reason)
                log.warning(
                    "attempt failed",
                    id=exchange.reply.request_id,
                    service=exchange.service.key,
                    destination=exchange.destination,
                    error=str(failure),
                )

    # the own replicas

    async def _local(self, exchange: Exchange, replica: Replica) -> None:
        admission, started = exchange.service.admission, self.clock()
        exchange.sent_to(DESTINATION_LOCAL, "", started)
        worked = True
        connection: UpstreamConnection | None = None
        first_byte = STREAM_FIRST_BYTE if exchange.call.stream else UNARY_FIRST_BYTE
        try:
            connection = await self._ask(exchange, replica, first_byte)
            replica.refusals = 0
            if exchange.refused_by is not None:  # it was not the request
                admission.suspect(exchange.refused_by, self.clock())
                self._move_on(admission)
            series = self.metrics.of(exchange.service).to(DESTINATION_LOCAL)
            relay = Relay(
                exchange, _in_form(exchange.call, connection), series,
                self.clock, _free_of_charge,
                first_byte=first_byte, idle=IDLE,
            )  # fmt: skip
            await relay.run()
            if self.losses:
                self.losses.acquit(_fingerprint(exchange))
        except (NotBegun, StreamBroken) as error:
            if connection is not None and connection.lost:
                self._lose(exchange, replica, started)
            if isinstance(error, StreamBroken):
                raise
            self._suspect(exchange, replica, sent=True)
            raise ReplicaFailed(str(error), sent=True) from None
        except ReplicaFailed as failure:
            worked = failure.sent
            if failure.lost:
                self._lose(exchange, replica, started)
            self._suspect(exchange, replica, sent=worked)
            raise
        except EngineRefused as refused:
            self._refused(exchange, replica, refused.error)
            raise
        finally:
            if connection is not None:
                connection.close()
            now = self.clock()
            admission.release(replica, now, now - started if worked else None, exchange.key)

    async def _ask(
        self, exchange: Exchange, replica: Replica, first_byte: float
    ) -> UpstreamConnection:
        """Send the request to a replica; return the connection once it answers with 200."""
        call, service = exchange.call, exchange.service
        more = cache_fields(
            call.endpoint, service.resource.runtime, service.namespace, exchange.key.tenant
        )
        body = engine_body(call, service.resource.served_name, more)
        connection = await self.pool.send(replica.address, call.engine_path, body, first_byte)
        if connection.status == 200 and connection.streams == call.stream:
            return connection
        try:
            raise await _fault(call, connection)
        finally:
            connection.close()

    def _recall(self, exchange: Exchange) -> None:
        """Let the replicas that a request has killed, when it came before, count."""
        if not self.losses:
            return
        exchange.sent_failures = self.losses.of(_fingerprint(exchange), self.clock())
        if exchange.sent_failures >= MAX_SENT:
            exchange.last_failure = (
                f"{MAX_SENT} replicas ended while they worked on this same request, and no other "
                f"gets it in the next {REMEMBERED_SECONDS / 60:.0f} minutes; change it"
            )

    def _lose(self, exchange: Exchange, replica: Replica, sent: float) -> None:
        """Remember that a replica ended while it worked on a request."""
        lost = self.losses.note(_fingerprint(exchange), replica.address, sent, self.clock())
        log.warning(
            "replica lost", id=exchange.reply.request_id, service=exchange.service.key,
            by_this_request=lost,
        )  # fmt: skip

    def _suspect(self, exchange: Exchange, replica: Replica, *, sent: bool) -> None:
        """Leave a replica alone for a moment, then let the queue move again."""
        if sent:
            exchange.sent_failures += 1
        else:
            exchange.unsent_failures += 1
        admission = exchange.service.admission
        admission.suspect(replica, self.clock())
        self._move_on(admission)

    def _refused(self, exchange: Exchange, replica: Replica, error: ApiError) -> None:
        """Remember what an engine said; when two say so, it is the request's fault."""
        admission = exchange.service.admission
        exchange.sent_failures += 1
        if exchange.refused_by is not None:
            exchange.refused_by.refusals = 0
        elif admission.has_refused(replica, self.clock()):
            self._move_on(admission)
        exchange.verdict, exchange.refused_by = error, replica

    def _move_on(self, admission: Admission) -> None:
        """Let the queue move when a replica rests, and again when it has rested."""
        admission.recheck()

        def again() -> None:
            admission.grant_free(self.clock())

        self.pool.loop.call_later(SUSPECT_SECONDS + 0.01, again)

    # providers

    async def _overflow(self, exchange: Exchange, target: Overflow) -> None:
        """Send a request to a provider, if it can be paid; give its permit back."""
        permit, exchange.usage = target.permit, None
        try:
            charge = await self._fund(exchange, target)
            permit.sent = True
            await self._remote(exchange, target, charge)
        finally:
            used = total(exchange.usage) if exchange.usage else None
            if target.provider.release(permit, used, self.clock()):
                self._tell_waiting()

    async def _fund(self, exchange: Exchange, target: Overflow) -> Charge:
        """Set aside what the request may cost at most, where a budget is asked.

        :raises NoFunds: when there is no money for it, or not for this provider as it is now.
        """
        provider, rates = target.provider, target.provider.rates[target.model]
        accounts = accounts_of(exchange, provider)
        if not accounts:
            return Charge(exchange, rates, self.funds, None)
        worst = worst_case(rates, most(exchange.call))
        waited, began = exchange.waited_for_money, self.clock()
        try:
            held = await self.funds.reserve(provider.key, accounts, worst, waited)
        finally:
            exchange.waited_for_money += self.clock() - began
        charge = Charge(exchange, rates, self.funds, held)
        unfit = provider.unfit_for(exchange.service.namespace, target.model)
        changed = unfit or provider.has_changed_since(target.permit)
        if not changed and provider.rates[target.model] == rates:
            return charge
        charge.refund()
        raise NoFunds(provider.key, Refusal.UNANSWERED, "it changed before money was granted")

    def _unfunded(self, exchange: Exchange, failure: NoFunds) -> None:
        """Go on as if the provider could not be used."""
        key = failure.provider
        exchange.tried.add(key)
        exchange.unfunded = f"{key}: {failure}"
        self.metrics.of(exchange.service).to(key).failed_attempt(failure.reason)
        log.info("no money", id=exchange.reply.request_id, provider=key, error=str(failure))

    async def _remote(self, exchange: Exchange, target: Overflow, charge: Charge) -> None:
        provider, service = target.provider, exchange.service
        key = provider.key
        exchange.tried.add(key)
        exchange.sent_to(key, target.reason, self.clock())
        waking = target.reason is SpillReason.COLD_START
        service.spilled[key] = service.spilled.get(key, 0) + 1
        service.waking += waking
        if waking:
            self.on_hold()
        try:
            await self._spill(exchange, target, charge)
        except ProviderUnusable as error:
            if error.fault is Fault.NOT_FINISHED:
                self._answers(provider, target.permit)
            else:
                provider.failed(target.permit, error, self.clock())
            raise ProviderFailed(f"{key}: {error}", error.fault) from None
        except RequestRefused as error:
            self._answers(provider, target.permit)
            exchange.refusal = ApiError(error.status, "provider_refused", str(error))
            raise ProviderFailed(f"{key}: the request was refused", REQUEST_REFUSED) from None
        finally:
            service.spilled[key] -= 1
            service.waking -= waking

    async def _spill(self, exchange: Exchange, target: Overflow, charge: Charge) -> None:
        """Send the request to a provider and relay what it answers; charge whatever happens."""
        provider, call = target.provider, exchange.call
        account = account_of(provider, target.model)
        patience = account.first_byte + (0.0 if call.stream else generation_seconds(call))
        series = self.metrics.of(exchange.service).to(provider.key)
        started = self.clock()
        answer: Answer | None = None
        try:
            answer = await self.client.send(account, charge.request, target.model, patience)
            if answer.streams != call.stream:
                raise ProviderUnusable(
                    Fault.UNEXPECTED_ANSWER, "an answer of another kind than asked for"
                )
            left = max(0.001, patience - (self.clock() - started))
            relay = Relay(
                exchange, answer, series, self.clock, charge.settle,
                first_byte=left, idle=account.idle,
                began=partial(self._answers, provider, target.permit),
            )  # fmt: skip
            await relay.run()
        except NotBegun as error:
            raise ProviderUnusable(error.fault, str(error)) from None
        except ProviderError as error:
            if answer is None and not error.may_bill:
                charge.refund()
            raise
        except (StreamBroken, asyncio.CancelledError):
            charge.break_off()
            raise
        finally:
            series.charge(Usage(0, 0), charge.close())
            if answer is not None:
                answer.close()

    def _answers(self, provider: Provider, permit: Permit) -> None:
        """Close a provider's breaker; those who waited for that may go."""
        if provider.answered(permit):
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Let those who wait for a provider decide again, now or in a moment."""

        def tell() -> None:
            self._telling, self._told = False, self.clock()
            self.chooser.state.recheck_all()

        if not self._telling:
            self._telling = True
            self.pool.loop.call_later(max(0.0, self._told + GATHER - self.clock()), tell)


def _fingerprint(exchange: Exchange) -> bytes:
    return fingerprint_of(exchange.call, exchange.key.tenant, exchange.service.key)


def _in_form(call: Call, connection: UpstreamConnection) -> Answer:
    """Return an engine's answer in the form of the client's API, which is nearly always its own."""
    return connection if call.messages is None else in_clients_form(call.request, connection)


def account_of(provider: Provider, model: str) -> Account:
    """Return where to send, as whom, and how long to wait."""
    spec = provider.resource.spec
    return Account(
        provider=provider.key,
        type=spec.type,
        url=spec.url,
        secret=provider.secret,
        connect=parse_duration(spec.timeouts.connect),
        first_byte=parse_duration(spec.timeouts.first_byte),
        idle=parse_duration(spec.timeouts.idle),
        azure_api_version=spec.azure_api_version or "",
        inputs=spec.inputs_of(model),
        destinations=spec.destinations,
    )


def generation_seconds(call: Call) -> float:
    """Return the seconds that a provider may take to make a whole answer."""
    if call.token_limit is None:
        return GENERATION_SECONDS
    return min(GENERATION_SECONDS, TOKEN_SECONDS * float(call.token_limit * call.choices))


async def _fault(call: Call, connection: UpstreamConnection) -> Exception:
    """Return what an engine's error means: its own fault is another replica's chance."""
    status = connection.status
    if status < 400 or status == 429 or status > 501:
        # 503 is llama.cpp still loading: it has not looked at the request.
        return ReplicaFailed(f"the engine answered {status}", sent=status != 503)
    if status == 404 and call.endpoint is COUNT_TOKENS:
        return ApiError(501, "not_supported", "the engine of this model does not count tokens")
    error = parse(await _whole(connection)).get("error")
    if status == 500 and not isinstance(error, dict):
        return ReplicaFailed("the engine answered 500 and no error", sent=True)
    detail = error if isinstance(error, dict) else {}
    message = str(detail.get("message") or f"the engine refused the request ({status})")[:500]
    told = ApiError(status, str(detail.get("type") or "engine_refused")[:64], message)
    return EngineRefused(told) if status == 500 else told


async def _whole(connection: UpstreamConnection) -> bytes:
    pieces: list[bytes] = []
    with contextlib.suppress(StreamBroken):
        while (data := await connection.read(IDLE)) and sum(map(len, pieces)) < MAX_ANSWER:
            pieces.append(data)
    return b"".join(pieces)


def _free_of_charge(usage: Usage | None) -> int:
    """What a token costs on the own hardware: its hours are counted elsewhere."""
    return 0
