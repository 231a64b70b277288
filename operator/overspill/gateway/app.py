"""The public API: route, key, body, service, then the dispatcher; every answer counted once.

Paths are matched exactly, on the raw bytes that came, before anything else looks at them.
Without a key that we know there is one answer, whatever was asked for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
import structlog

from overspill import logs
from overspill.api.keys import ClientKey
from overspill.api.names import HEADER_DATA_POLICY
from overspill.api.values import format_money
from overspill.gateway.call import ENDPOINTS, MESSAGES, Call, parse, too_large
from overspill.gateway.dispatch import Dispatcher
from overspill.gateway.errors import ApiError, StreamBroken, bad_request
from overspill.gateway.exchange import CLIENT_LEFT, Exchange, new_request_id
from overspill.gateway.keys import authenticate
from overspill.gateway.memory import Memory, Share, weigh
from overspill.gateway.metrics import Metrics
from overspill.gateway.prefix import blocks_of
from overspill.gateway.quota import Quotas, told
from overspill.gateway.rate import Throttle
from overspill.gateway.reply import Reply
from overspill.gateway.resolve import Resolver
from overspill.gateway.server import SCOPE_KEY, ClientConnection
from overspill.gateway.size import total
from overspill.gateway.state import Service, State
from overspill.providers.base import Api

log = structlog.get_logger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MODELS = b"/v1/models"
BODY_SECONDS = 30.0  # for a body, from the end of the head to its last byte
LAST_WORD_SECONDS = 1.0  # for the error that ends an answer when the server stops
DISCARD_FACTOR = 4  # a body up to so many times the limit is read before its 413
# Times its size is what a body takes: in pieces and as a whole, then parsed and anew.
WHILE_READ = 2
_DATA_POLICY = HEADER_DATA_POLICY.encode()
_HEADERS = {
    b"authorization", b"x-api-key", b"content-length", b"content-encoding", _DATA_POLICY
}  # fmt: skip
_NEVER, _ALLOWED = b"never", b"allowed"


class Gateway:
    """The ASGI application.

    :param memory: for all requests together.
    :param max_body: bytes of a request's body.
    """

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        dispatcher: Dispatcher,
        memory: Memory,
        *,
        max_body: int,
    ) -> None:
        self.state, self.metrics, self.dispatcher = state, metrics, dispatcher
        self.resolver, self.memory = Resolver(state), memory
        self.quotas = Quotas(state.keys)
        self.max_body = max_body
        self.closing = False  # the server stops: answers end their connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        connection: ClientConnection | None = scope.get(SCOPE_KEY)
        reply = Reply(
            send, new_request_id(), connection, closing=self.closing, api=_api(scope["raw_path"])
        )
        task = asyncio.current_task()
        if connection is not None:
            connection.task = task
        try:
            await self._answer(scope, receive, reply)
        except ApiError as error:
            # Anyone can cause a 401, and as many as the network carries.
            tell = log.debug if error.status == 401 else log.info
            tell("refused", id=reply.request_id, status=error.status, code=error.code)
            await reply.error(error, [])
        except asyncio.CancelledError:
            reply.stop()
            if task is not None:
                task.uncancel()
            if not reply.client_left:
                await _last_word(reply, 503, "shutting_down", "the gateway stopped; send it again")
        except Exception:
            log.exception("fault of the gateway", id=reply.request_id)
            await _last_word(reply, 500, "internal_error", "a fault of the gateway; see its log")
        finally:
            if connection is not None and connection.task is task:
                connection.task = None  # else it is the next request's already

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers = _read_headers(scope["headers"])
        authorization = headers.get(b"authorization", b"")
        key = authenticate(self.state.keys, authorization, headers.get(b"x-api-key", b""))
        path: bytes = scope["raw_path"]
        endpoint = ENDPOINTS.get(path)
        if endpoint is None and path != MODELS:
            raise ApiError(404, "not_found", "There is no such path here.")
        method = "GET" if endpoint is None else "POST"
        if scope["method"] != method:
            raise ApiError(
                405, "method_not_allowed", f"Use {method}.",
                headers=((b"allow", method.encode()),),
            )  # fmt: skip
        if endpoint is None:
            await self._models(key, reply)
            return
        may_leave = _may_leave(headers) and endpoint.spills
        with Share(self.memory) as share:
            # No name for the client's bytes: they are not held while the request is served.
            call = parse(endpoint, await self._body(scope, receive, headers, share))
            parsed = weigh(call.fields) + (weigh(call.messages) if call.messages else 0)
            share.hold(parsed + len(call.body))
            service = self.resolver.resolve(key, call.model)
            await self._serve(key, service, call, reply, may_leave)

    async def _body(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], share: Share
    ) -> bytes:
        """Return a request's body, which is nearly always here already."""
        announced = admit_body(headers, self.max_body, share)
        connection: ClientConnection | None = scope.get(SCOPE_KEY)
        body = None if connection is None else connection.take_body()
        if body is None:
            return await read_body(receive, self.max_body, share, announced)
        if len(body) > self.max_body:
            raise too_large(self.max_body)
        share.hold(max(len(body), announced) * WHILE_READ)
        return body

    async def _models(self, key: ClientKey, reply: Reply) -> None:
        """https://platform.openai.com/docs/api-reference/models/list"""
        data = [
            {
                "id": name,
                "object": "model",
                "created": service.created,
                "owned_by": service.namespace,
            }
            for name, service in self.resolver.visible(key)
        ]
        await reply.unary(200, orjson.dumps({"object": "list", "data": data}), [])

    async def _serve(
        self, key: ClientKey, service: Service, call: Call, reply: Reply, may_leave: bool
    ) -> None:
        """Run a request, and count it however it ends."""
        now = self.state.clock()
        exchange = Exchange(key, service, call, reply, may_leave, arrived=now, status=500)
        if service.caches_prefixes:
            exchange.blocks = blocks_of(call, key.tenant)
        throttle: Throttle | None = None
        try:
            throttle = self._admit(exchange)
            await self.dispatcher.run(exchange)
            exchange.status = 200
        except ApiError as error:
            exchange.status = error.status
            await reply.error(error, exchange.headers())
        except StreamBroken as error:
            exchange.status = 502
            broken = ApiError(502, "upstream_broken", f"the answer ended early: {error}")
            await reply.error(broken, exchange.headers())
        except asyncio.CancelledError:
            exchange.status = CLIENT_LEFT if reply.client_left else 503
            raise
        finally:
            reply.stop()
            if throttle is not None:
                self._settle(exchange, throttle)
            self._count(exchange)

    def _admit(self, exchange: Exchange) -> Throttle | None:
        """Count a request in the limits of its key, and tell the client of them.

        :raises ApiError: when it is beyond them.
        """
        key, now = exchange.key, exchange.arrived
        if not key.limited:
            return None
        throttle = self.quotas.admit(key, exchange.expected_tokens(), self.state.share, now)
        exchange.reply.tell(told(throttle, now))
        return throttle

    def _settle(self, exchange: Exchange, throttle: Throttle) -> None:
        """Count what a request has used instead of what was expected, where that is known."""
        if exchange.usage is not None:
            used = total(exchange.usage)
        elif exchange.chunks == 0:
            used = 0  # nothing was answered
        else:
            return
        throttle.take(used - exchange.expected_tokens(), self.state.clock(), requests=0)

    def _count(self, exchange: Exchange) -> None:
        seconds = self.state.clock() - exchange.arrived
        if exchange.destination:
            series = self.metrics.of(exchange.service).to(exchange.destination)
            series.count(exchange.reason, exchange.status)
            series.duration.observe(seconds)
            if exchange.usage is not None:
                series.charge(exchange.usage, exchange.cost)
            if exchange.status == 200 and within_objective(exchange, seconds):
                self.metrics.of(exchange.service).within.inc()
        else:
            self.metrics.of(exchange.service).to("none").count("", exchange.status)
        _log(exchange, seconds)


def within_objective(exchange: Exchange, seconds: float) -> bool:
    """Whether an answer kept both objectives.

    Where an engine does not tell when the first token of a unary answer was there, the whole
    must have taken no longer than a stream at its objectives.
    """
    service = exchange.service
    if exchange.first_token is None:
        tokens = exchange.usage.completion if exchange.usage else 1
        return seconds <= service.ttft + service.itl * max(0, tokens - 1)
    itl = exchange.token_seconds
    return exchange.first_token <= service.ttft and (itl is None or itl <= service.itl)


def _api(path: bytes) -> Api:
    """Return in whose form errors are told, also those of paths that there are not."""
    return Api.ANTHROPIC if path.startswith(MESSAGES.path) else Api.OPENAI


def _read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers that matter; one that came twice is joined as RFC 9110 §5.2 says."""
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        if name in _HEADERS:
            headers[name] = headers[name] + b"," + value if name in headers else value
    return headers


def admit_body(headers: dict[bytes, bytes], limit: int, share: Share) -> int:
    """Return the bytes that a body is announced to have, 0 where it says nothing sound of them.

    :param limit: bytes.
    :param share: of the memory, which holds the body from now on.
    :raises ApiError: 413 when it is much larger, 400 when it is compressed, 503 when there is no
        memory for it.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise bad_request("Content-Encoding is not supported; send plain JSON", code="encoding")
    announced = headers.get(b"content-length", b"")
    size = int(announced) if announced.isdigit() else 0
    if size > limit * DISCARD_FACTOR:
        raise too_large(limit)
    if size <= limit:  # else it is only read to its end
        share.hold(size * WHILE_READ)
    return size


async def read_body(receive: Receive, limit: int, share: Share, announced: int) -> bytes:
    """Read a request's body that is still coming.

    :param limit: bytes.
    :param announced: the same of the head, 0 where that says nothing.
    :raises ApiError: 413 when it is larger, 408 when it is slow, 503 when there is no memory for
        it.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_pieces(receive, limit, share, announced)
    except TimeoutError:
        raise ApiError(
            408, "request_timeout", f"the body took longer than {BODY_SECONDS:.0f} s",
            headers=((b"connection", b"close"),),
        ) from None  # fmt: skip


async def _read_pieces(receive: Receive, limit: int, share: Share, announced: int) -> bytes:
    """Read piece by piece; what is too large is read to its end, but not kept."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        piece = message.get("body", b"")
        size += len(piece)
        if size <= limit:
            share.hold(max(size, announced) * WHILE_READ)
            pieces.append(piece)
        elif size > limit * DISCARD_FACTOR:
            raise too_large(limit)
        if not message.get("more_body"):
            break
    if size > limit:
        raise too_large(limit)
    return b"".join(pieces)


def _may_leave(headers: dict[bytes, bytes]) -> bool:
    """Read the header that tightens the data policy; one that we do not know is refused."""
    value = headers.get(_DATA_POLICY)
    if value is None:
        return True
    policies = {policy.strip().lower() for policy in value.split(b",")}
    if policies - {_NEVER, _ALLOWED}:
        raise bad_request(f"{HEADER_DATA_POLICY} must be never or allowed", HEADER_DATA_POLICY)
    return _NEVER not in policies  # a proxy may have added one: the stricter holds


async def _last_word(reply: Reply, status: int, code: str, message: str) -> None:
    """End an answer that will not get any further."""
    error = ApiError(status, code, message, retry_after=1)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await reply.error(error, [])


def _log(exchange: Exchange, seconds: float) -> None:
    usage = exchange.usage
    logs.info(
        "request",
        {
            "id": exchange.reply.request_id,
            "key": exchange.key.id,
            "service": exchange.service.key,
            "path": exchange.call.endpoint.path.decode(),
            "stream": exchange.call.stream,
            "destination": exchange.destination,
            "reason": exchange.reason,
            "status": exchange.status,
            "seconds": round(seconds, 4),
            "wait": None if exchange.wait is None else round(exchange.wait, 4),
            "ttft": None if exchange.first_token is None else round(exchange.first_token, 4),
            "input_tokens": usage.prompt if usage else None,
            "output_tokens": usage.completion if usage else None,
            "estimated": usage.estimated if usage else None,
            "cost_usd": format_money(exchange.cost),
        },
    )
