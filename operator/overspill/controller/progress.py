"""How far the loaders of a service's pods are: each says it itself while it runs.

A pod that does not answer in time is as if it had said nothing; what it says is not trusted more
than any tenant's pod: its size is bounded, redirects are not followed, numbers are checked.
"""

import asyncio
from collections.abc import Iterable

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from overspill.controller.facts import Loading

TIMEOUT = aiohttp.ClientTimeout(total=2.0)  # seconds
AT_ONCE = 16  # requests of all reconciles together
ASKED = 8  # loaders of one service at most; they load the same model
MAX_REPORT = 4096  # bytes


class Report(BaseModel):
    """What `GET /progress` of a loader answers."""

    bytes: int = Field(ge=0, lt=2**63)
    total: int | None = Field(None, ge=0, lt=2**63)
    left: float | None = Field(None, ge=0, allow_inf_nan=False)  # seconds


class Loaders:
    """Asks loaders."""

    def __init__(self) -> None:
        """Make one for the whole operator."""
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def ask(self, addresses: Iterable[str]) -> Loading | None:
        """Return how far the first of several loaders is; None when there is none.

        :param addresses: ``host:port`` of each loader that runs.
        """
        asked = list(addresses)[:ASKED]
        if not asked:
            return None
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            found = await asyncio.gather(*(self._one(session, address) for address in asked))
        return max(found, key=lambda loading: loading.loaded)

    async def _one(self, session: aiohttp.ClientSession, address: str) -> Loading:
        url = f"http://{address}/progress"
        try:
            async with self._slots, session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return Loading()
                report = Report.model_validate_json(await _read(response.content))
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
            return Loading()
        return Loading(report.bytes, report.total, report.left)


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole of it, in however many pieces it comes; no JSON any more when it is too long."""
    body = b""
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_REPORT:
            return b""
    return body
