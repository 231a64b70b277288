"""JSON that nests deeper than Python reads: cut, so that one object blinds nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from overspill.cluster.client import MAX_LINE
from overspill.cluster.decoding import MAX_DEPTH, SAFE, loads, shallow
from overspill.controller.sessions import ShallowLines, ShallowResponse

TEXTS = st.text() | st.sampled_from(['"', "\\", "{[", '\\"}]', "\\\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def nested(depth: int, inside: str = "1") -> str:
    return '{"a":' * depth + inside + "}" * depth


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, dict | list) and value:
        value = value["a"] if isinstance(value, dict) else value[0]
        depth += 1
    return depth


@given(VALUES, st.booleans())
def test_what_python_can_read_is_read_as_it_is(value: Any, wide: bool) -> None:
    text = json.dumps([value, [[]] * SAFE] if wide else value).encode()
    assert json.loads(shallow(text)) == json.loads(text)


@given(VALUES, st.integers(0, 20))
def test_the_cut_is_at_one_depth(value: Any, more: int) -> None:
    below = json.dumps(value)
    text = json.dumps([[[]] * SAFE, 0, value])
    text = text.replace(" 0,", f" {nested(MAX_DEPTH - 1, below)},", 1)
    whole, levels = json.loads(text), nested(MAX_DEPTH - 1, "null" if below[0] in "[{" else below)
    assert json.loads(shallow(text.encode())) == [whole[0], json.loads(levels), whole[2]]
    deeper = nested(MAX_DEPTH + more, below)
    assert shallow(f"[{deeper},{'[],' * SAFE}{below}]".encode()).endswith(f",{below}]".encode())


@pytest.mark.parametrize("depth", [1100, 9000])
async def test_one_deep_object_hides_no_other(depth: int) -> None:
    deep = nested(depth, json.dumps('}"{\\'))
    text = f'{{"items": [{{"name": "a}}"}}, {deep}, {{"name": "b"}}]}}'.encode()
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)
    first, cut, last = (await loads(text))["items"]
    assert (first, last) == ({"name": "a}"}, {"name": "b"})
    assert depth_of(cut) == MAX_DEPTH - 2


@pytest.mark.parametrize(
    "end", [b"", b'"', b'"' + b"x" * (1 << 20), b'"' + b"\\" * 999_999, b'"a",' * 99_999 + b'"']
)
async def test_what_is_no_json_is_still_none(end: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        await loads(b'{"a": ' + b"[" * 2000 + end)


async def test_a_long_list_is_cut_beside_the_event_loop() -> None:
    objects = json.dumps([{"name": "a" * 500}] * SAFE)[1:-1]
    reading = asyncio.create_task(loads(f"[{nested(1100)},{objects}]".encode()))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await reading) == SAFE + 1
    assert turns > 2  # one to begin and one to end would be all, were it done in between


class Chunks:
    """The content of a response that comes in pieces of one size."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(self.text), size):
            yield self.text[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 4096, 100_000])
async def test_a_watch_gives_every_line_whole(size: int) -> None:
    lines = [b'{"n":1}', nested(1500).encode(), b'{"n":2}', b'{"n":3}']
    content: Any = Chunks(b"\n".join(lines))
    got = b"".join([chunk async for chunk in ShallowLines(content).iter_chunked(size)])
    numbers = [orjson.loads(line) for line in got.splitlines()]
    assert [n.get("n") for n in numbers] == [1, None, 2, 3]


async def test_a_watch_ends_at_a_line_that_never_ends_and_is_begun_anew() -> None:
    content: Any = Chunks(b'{"n":1}\n"' + b"x" * (3 * MAX_LINE))
    got = b"".join([chunk async for chunk in ShallowLines(content).iter_chunked(1 << 20)])
    first, last = [orjson.loads(line) for line in got.splitlines()]
    assert first == {"n": 1}
    assert (last["type"], last["object"]["code"]) == ("ERROR", 410)


async def follow(request: web.Request) -> web.StreamResponse:
    """Send an event, and another that is too deep; end then, or never."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"n":1}\n' + nested(1500).encode() + b"\n")
    if request.query["ends"] == "false":
        await asyncio.sleep(60)
    return response


@pytest.mark.parametrize("ends", ["true", "false"])
async def test_a_watch_that_ends_or_falls_silent_ends_as_any_other(ends: str) -> None:
    app = web.Application()
    app.router.add_get("/", follow)
    got = []
    async with TestServer(app) as server:
        url = server.make_url("/").with_query(watch="true", ends=ends)
        timeout = aiohttp.ClientTimeout(sock_read=0.5)
        async with aiohttp.ClientSession(response_class=ShallowResponse) as session:
            with suppress(aiohttp.SocketTimeoutError):
                async with session.get(url, timeout=timeout) as answer:
                    async for lines in answer.content.iter_chunked(1 << 20):
                        got += lines.splitlines()
    assert [orjson.loads(line).get("n") for line in got] == [1, None]
