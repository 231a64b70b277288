"""JSON from the API server, which nests up to 10,000 levels where Python reads 1,000.

Whoever may create any object can nest so deep, in a field without a schema or in the
``managedFields`` of its metadata; a list that holds one such object would be unreadable as a
whole, and its readers blind to all others. Nothing that we read is so deep, so what lies below
100 levels is cut, and reads as null.
"""

import asyncio
import re
from typing import Any

import orjson

MAX_DEPTH = 100
SAFE = 500  # opening brackets that no parser minds, however they nest
QUICK = 100_000  # bytes that are cut in some milliseconds

# All up to the next bracket that is in no string. It matches anywhere, also in a text that is cut
# off inside a string, so that a scan is linear: no start is tried twice.
_NEXT = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"?)*+([{}\[\]]?)', re.DOTALL)


async def loads(text: bytes) -> Any:
    """Parse JSON, cut at ``MAX_DEPTH`` where it could not be read otherwise.

    :raises orjson.JSONDecodeError: when it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.loads(await cut(text))


async def cut(text: bytes) -> bytes:
    """Do as :func:`shallow`, beside the event loop where it takes long."""
    return await asyncio.to_thread(shallow, text) if len(text) > QUICK else shallow(text)


def shallow(text: bytes) -> bytes:
    """Return JSON text without what lies deeper than ``MAX_DEPTH``; the text itself as a rule."""
    if text.count(b"{") + text.count(b"[") <= SAFE:
        return text
    kept, start, depth = [], 0, 0
    for token in _NEXT.finditer(text):
        bracket = token[1]
        if bracket in (b"{", b"["):
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[start : token.end() - 1] + b"null")
        elif bracket:
            depth -= 1
            if depth == MAX_DEPTH:
                start = token.end()
    return text if not kept else b"".join([*kept, text[start:]])
