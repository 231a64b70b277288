"""The connection of kopf, which reads JSON that nests too deep for Python's parser.

Else one object of anybody would end all watches; see :mod:`overspill.cluster.decoding`.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import kopf
import orjson
import structlog

from overspill.cluster.client import MAX_LINE
from overspill.cluster.decoding import cut, loads

log = structlog.get_logger(__name__)

MAX_TASKS = 1000  # of kopf's for objects, with which the next page of a list waits
OF_OBJECT = "worker for "  # begin of their names; others are there for good, five a watch
ROOM_SECONDS = 20.0  # that it waits at most
LOOK_SECONDS = 0.1

_TOO_LONG = f"a line of the watch exceeds {MAX_LINE} bytes, which no API server sends"
# To kopf a watch that ended: it lists again. A broken one it would go on with, at the same line.
_EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": _TOO_LONG}}


class ShallowLines:
    """The lines of a watch, whole and cut; all else is asked of the content itself."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        """Read from a response's content."""
        self._content = content

    def __getattr__(self, name: str) -> Any:
        """Return what the content has: aiohttp ends a response through it."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield one or more whole lines at a time.

        A line longer than ``MAX_LINE`` ends the watch, as an expired one.
        """
        rest = bytearray()
        async for chunk in self._content.iter_chunked(size):
            *head, tail = chunk.split(b"\n")
            if head:
                head[0] = bytes(rest) + head[0]
                rest.clear()
                yield b"".join([await cut(line) + b"\n" for line in head])
            rest += tail
            if len(rest) > MAX_LINE:
                log.warning("watch ended", error=_TOO_LONG)
                yield orjson.dumps(_EXPIRED) + b"\n"
                return
        if rest:
            yield await cut(bytes(rest))


class Crowd:
    """How many objects kopf looks at. Counted once for all lists that wait: it takes 1 ms."""

    def __init__(self) -> None:
        """Begin with a count that is too old."""
        self._counted, self._count = float("-inf"), 0

    def __call__(self) -> int:
        """Return the count of the last ``LOOK_SECONDS``."""
        now = time.monotonic()
        if now - self._counted >= LOOK_SECONDS:
            self._count = sum(t.get_name().startswith(OF_OBJECT) for t in asyncio.all_tasks())
            self._counted = now
        return self._count


_crowd = Crowd()


async def _room() -> None:
    """Wait until kopf has looked at most of what it listed before: it makes a task of each object.

    Bounded, so that a task that hangs cannot keep a list back.
    """
    for _ in range(round(ROOM_SECONDS / LOOK_SECONDS)):
        if _crowd() < MAX_TASKS:
            return
        await asyncio.sleep(LOOK_SECONDS)


class ShallowResponse(aiohttp.ClientResponse):
    """A response whose JSON is cut where it is too deep."""

    async def json(self, **_: Any) -> Any:
        """Return the parsed body, a list's objects without who owns which of their fields.

        That is most of an object's metadata, is read by nobody here, and kopf holds what it lists.
        A page of a list comes when kopf has room for it.
        """
        body = await loads(await self.read())
        if isinstance(body, dict) and "items" in body:
            for item in body["items"]:
                item["metadata"].pop("managedFields", None)
            await _room()
        return body

    async def start(self, connection: Any) -> "ShallowResponse":
        """Begin; what comes is read through :class:`ShallowLines` where it is a watch."""
        await super().start(connection)
        if self.url.query.get("watch") == "true" and self.status == 200:
            self.content: Any = ShallowLines(self.content)
        return self


async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
    """Log in as $KUBECONFIG says, or as the pod's service account."""
    info = None
    if not os.environ.get("KUBECONFIG"):
        info = kopf.login_with_service_account(**kwargs)
    info = info or kopf.login_with_kubeconfig(**kwargs)
    if info is None:
        return None
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            response_class=ShallowResponse,
        ),
    )
