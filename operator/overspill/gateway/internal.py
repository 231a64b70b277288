"""The port for the cluster itself: metrics, demand, money, decisions, liveness, readiness.

``/demand`` and ``/why/ID`` say which models are asked for, and ``/ledger`` takes what may be spent
at providers, so they are for the operator alone, and for who may make tokens of its service
account. Such a token, made for our audience, is checked by a TokenReview and remembered for at
most a minute. Anyone who reaches the port can ask for a review, so they are few at a time, and
what was refused is remembered, too.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError

from overspill.api.names import HEADER_TOKEN
from overspill.gateway.demand import Demand
from overspill.gateway.funds import Funds
from overspill.gateway.metrics import Metrics
from overspill.gateway.server import SCOPE_KEY, ClientConnection
from overspill.ledger.messages import Grants

log = structlog.get_logger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Review = Callable[[str], Awaitable[str]]

WHY = b"/why/"  # the id of a request follows
REMEMBERED_SECONDS = 60.0
REFUSED_SECONDS = 10.0  # a token that is not good yet may become so
MAX_REMEMBERED = 64
MAX_REVIEWS = 2  # at the same time; the API server answers one in some milliseconds
MAX_WAITING = 32  # for a review; the operator would wait for as many
MAX_TOKEN = 8192  # bytes
MAX_GRANTS = 4 * 1024 * 1024  # bytes; one account in one window takes about 200
GRANTS_SECONDS = 5.0  # for them to arrive


class NotReviewed(Exception):
    """The API server could not be asked; the same token can be sent again."""


class TooManyReviews(Exception):
    """Others have their tokens reviewed; this one can be sent again."""


class TokenCheck:
    """Whether a caller is the operator.

    :param review: returns the user name that a token proves, or ""; raises NotReviewed.
    :param user: the only one who may.
    :param clock: monotonic seconds.
    """

    def __init__(self, review: Review, user: str, clock: Callable[[], float]) -> None:
        self._review, self._user, self._clock = review, user, clock
        self._good_until: dict[bytes, float] = {}
        self._bad_until: dict[bytes, float] = {}
        self._turn = asyncio.Semaphore(MAX_REVIEWS)
        self._waiting = 0

    async def allows(self, authorization: bytes) -> bool:
        """Check an Authorization header.

        :raises NotReviewed: when the API server cannot be asked.
        :raises TooManyReviews: when too many wait for its answer.
        """
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not 0 < len(token) <= MAX_TOKEN or not token.isascii():
            return False
        digest, now = hashlib.sha256(token).digest(), self._clock()
        if self._good_until.get(digest, 0.0) > now:
            return True
        if self._bad_until.get(digest, 0.0) > now:
            return False
        if await self._reviewed(token.decode()) == self._user:
            _remember(self._good_until, digest, now + REMEMBERED_SECONDS)
            return True
        _remember(self._bad_until, digest, now + REFUSED_SECONDS)
        return False

    async def _reviewed(self, token: str) -> str:
        """Ask the API server when it is this token's turn."""
        if self._waiting >= MAX_WAITING:
            raise TooManyReviews
        self._waiting += 1
        try:
            async with self._turn:
                return await self._review(token)
        finally:
            self._waiting -= 1


def _remember(until: dict[bytes, float], digest: bytes, when: float) -> None:
    """Note an answer; of too many, the oldest goes."""
    until.pop(digest, None)
    until[digest] = when
    if len(until) > MAX_REMEMBERED:
        del until[next(iter(until))]


class Internal:
    """The ASGI application.

    :param ready: whether requests should be sent to this gateway.
    :param why: returns what is known of a request's way, None when that is nothing.
    """

    def __init__(
        self,
        metrics: Metrics,
        demand: Demand,
        funds: Funds,
        check: TokenCheck,
        ready: Callable[[], bool],
        why: Callable[[str], dict[str, Any] | None],
    ) -> None:
        self._metrics, self._demand, self._funds = metrics, demand, funds
        self._check, self._ready, self._why = check, ready, why

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        connection: ClientConnection | None = scope.get(SCOPE_KEY)
        task = asyncio.current_task()
        try:
            if connection is not None:
                connection.task = task
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            if connection is None or not connection.left:
                raise
        finally:
            if connection is not None and connection.task is task:
                connection.task = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, get = scope["raw_path"], scope["method"] == "GET"
        if path == b"/metrics" and get:
            await _text(send, 200, await self._metrics.render(), CONTENT_TYPE_LATEST.encode())
        elif path == b"/healthz" and get:
            await _text(send, 200, b"ok\n")
        elif path == b"/readyz" and get:
            ready = self._ready()
            await _text(send, 200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        elif path == b"/demand" and get:
            if await self._allowed(scope, send):
                await self._stream_demand(send)
        elif path.startswith(WHY) and get:
            if await self._allowed(scope, send):
                await self._tell_why(path.removeprefix(WHY), send)
        elif path == b"/ledger" and scope["method"] == "POST":
            if await self._allowed(scope, send):
                await self._take_grants(receive, send)
        else:
            await _text(send, 404, b"not found\n")

    async def _allowed(self, scope: Scope, send: Send) -> bool:
        """Whether the caller may go on; who may not has been told so."""
        headers = dict(scope["headers"])
        # The API server's proxy takes the Authorization header for its own.
        proxied = headers.get(HEADER_TOKEN.encode())
        credentials = b"Bearer " + proxied if proxied else headers.get(b"authorization", b"")
        try:
            allowed = await self._check.allows(credentials)
        except NotReviewed as error:
            log.warning("token not reviewed", error=str(error))
            await _text(send, 503, b"the token could not be reviewed\n")
            return False
        except TooManyReviews:
            await _text(send, 503, b"too many tokens wait for their review\n")
            return False
        if not allowed:
            await _text(send, 401, b"this is for the operator alone\n")
        return allowed

    async def _stream_demand(self, send: Send) -> None:
        await _start(send, 200, b"application/x-ndjson")
        async for line in self._demand.lines():
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _tell_why(self, request_id: bytes, send: Send) -> None:
        known = self._why(request_id.decode(errors="replace"))
        if known is None:
            await _text(send, 404, b"this request is none of the newest here\n")
            return
        await _text(send, 200, orjson.dumps(known), b"application/json")

    async def _take_grants(self, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(GRANTS_SECONDS):
                grants = Grants.model_validate_json(await _read(receive))
        except ValidationError:
            await _text(send, 400, b"not the operator's answer to a statement\n")
        except TimeoutError:
            await _text(send, 408, b"the body came too slowly\n")
        else:
            self._funds.hear(grants)
            await _text(send, 200, b"ok\n")


async def _read(receive: Receive) -> bytes:
    """Return a body; of one that is too large, not more than enough to see that."""
    body = bytearray()
    while len(body) <= MAX_GRANTS:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
    return b""


async def _start(send: Send, status: int, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _text(send: Send, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    await _start(send, status, kind, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})
