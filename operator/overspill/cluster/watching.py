"""A collection followed for ever: list, then watch, then list again when needed.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes

A watch goes on from its last resourceVersion (bookmarks keep that fresh), so an idle one
costs a request a minute. It lists again when the server has forgotten that version (410),
when a watch went silent, or when three tries in a row failed. A consumer must treat each SYNC
as the whole truth: what is not in it is gone. Events can come twice, and a state in between can
be missing.

A watch without lists begins with an ADDED for each object that is there, one at a time and in any
order; begun anew, it does not tell what was deleted meanwhile.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import structlog

from overspill.cluster.backoff import backoff
from overspill.cluster.decoding import loads
from overspill.cluster.errors import ClusterError, Expired, TimedOut, Unavailable, from_status

log = structlog.get_logger(__name__)

Object = dict[str, Any]
EventType = Literal["SYNC", "ADDED", "MODIFIED", "DELETED"]
Snapshot = Callable[[], Awaitable[tuple[list[Object], str]]]
Lines = Callable[[dict[str, str]], AbstractAsyncContextManager[AsyncIterator[bytes]]]

RELIST_AFTER = 3  # failed tries in a row
LONGEST_PAUSE = 30.0  # seconds between two tries
STEADY_SECONDS = 1.0  # a stream that was open for so long was no failure


@dataclass(frozen=True)
class Event:
    """One step of a watch: SYNC with all ``items``, or a change of one ``obj``."""

    type: EventType
    obj: Object = field(default_factory=dict)
    items: list[Object] = field(default_factory=list)


async def watch(snapshot: Snapshot | None, lines: Lines, *, what: str) -> AsyncIterator[Event]:
    """Yield a SYNC first and after every list, and the changes between.

    :param snapshot: lists the collection: its items and resourceVersion; None: without lists.
    :param lines: opens one watch with the given query and gives its lines.
    :param what: for the log.
    """
    version, failures = "", 0
    clock = asyncio.get_running_loop().time
    while True:
        started = float("inf")  # until the stream is open
        try:
            if snapshot and not version:
                items, version = await snapshot()
                yield Event("SYNC", items=items)
            async with lines(_query(version)) as stream:
                started = clock()
                async for line in stream:
                    kind, obj = await _decode(line)
                    version = obj["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield Event(kind, obj)  # type: ignore[arg-type]
            # A server that ends streams at once must not make us spin.
            failures = failures + 1 if clock() - started < STEADY_SECONDS else 0
        except Expired:
            version, failures = "", failures + 1
        except ClusterError as error:
            # One that a balancer cuts whenever it is idle is no outage, however often.
            failures = failures + 1 if clock() - started < STEADY_SECONDS else 1
            if isinstance(error, TimedOut):  # what is in between may swallow the next one too
                version = ""
            log.warning("watch broken", what=what, error=str(error), failures=failures)
        if failures >= RELIST_AFTER:
            version = ""
        if failures:
            await asyncio.sleep(backoff(failures, first=0.5, longest=LONGEST_PAUSE))


def _query(version: str) -> dict[str, str]:
    # Spread, so that the watches of many processes do not end in the same second.
    seconds = random.randint(45, 60)  # noqa: S311
    return {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(seconds),
    }


async def _decode(line: bytes) -> tuple[str, Object]:
    """Return type and object of one line.

    :raises Expired: for the 410 that comes inside a stream.
    :raises Unavailable: for a line that is cut off.
    """
    try:
        event = await loads(line)
    except orjson.JSONDecodeError as error:
        raise Unavailable("the watch broke off inside an event") from error
    if event["type"] == "ERROR":
        raise from_status(int(event["object"].get("code", 500)), orjson.dumps(event["object"]))
    return event["type"], event["object"]
