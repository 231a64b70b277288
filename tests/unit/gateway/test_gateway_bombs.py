"""Bodies that cost more than they are: refused before a parser, which nothing interrupts, has them.

Parsed, 10 MB of ``[]`` stop all streams of a gateway for a second and take 72 times their size.
"""

import gzip
import json
import tracemalloc
from typing import Any

import orjson
import pytest
from gateway_world import BODY, Upstream, World
from hypothesis import given
from hypothesis import strategies as st

from overspill.gateway import memory
from overspill.gateway.call import CHAT, parse
from overspill.gateway.errors import ApiError

LIMIT = 10 * 1024 * 1024  # bytes of a body
START = b'{"model":"m","messages":[{"role":"user","content":"x"}'


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    """Return a body as large as one may be."""
    return start + unit * ((LIMIT - len(start) - len(end)) // len(unit)) + end


BOMBS = {
    "a million messages": filled(START, b',{"role":"user"}', b"]}"),
    "lists": filled(START + b'],"tools":[[]', b",[]", b"]}"),
    "objects": filled(START + b'],"tools":[{}', b",{}", b"]}"),
    "members": filled(START + b'],"metadata":{"a":0', b',"b":0', b"}}"),
    "numbers": filled(START + b'],"tools":[0', b",0", b"]}"),
    "strings": filled(START + b'],"tools":[""', b',""', b"]}"),
    "strings that end in a backslash": filled(START + b'],"tools":[""', b',"\\\\"', b"]}"),
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr("overspill.gateway.call.orjson.loads", None)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="more than 500000 values") as info:
            parse(CHAT, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (info.value.status, info.value.code) == (400, "too_many_values")
    assert peak <= 3 * len(body)


def test_strings_of_what_is_no_json_are_counted_too() -> None:
    body = filled(START + b'],"tools":[', b'\\"[[[\\\\"', b"]}")
    with pytest.raises(ApiError, match="more than 500000 values"):
        memory.look_at(body)


@pytest.mark.parametrize(
    "body",
    [
        START + b'],"tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        START + b'],"seed":1e999}',
        START + b'],"tools":["\\ud800"]}',
        b"\xff" * 1000,
        filled(START + b'],"tools":["', b"[", b""),
        START + b'],"tools":["' + b"[" * 200_000 + b'\\"' * 5_000,
    ],
    ids=["depth", "infinity", "half a character", "no text", "endless string", "endless quotes"],
)
def test_what_no_parser_can_hold_is_a_400(body: bytes) -> None:
    with pytest.raises(ApiError) as info:
        parse(CHAT, body)
    assert (info.value.status, info.value.code) == (400, "invalid_json")


async def test_a_compressed_body_is_not_unpacked(gateway: World, engine: Upstream) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    status, _, answer = await gateway.post(
        "/v1/chat/completions", bomb, **{"Content-Encoding": "gzip"}
    )
    assert (status, orjson.loads(answer)["error"]["code"]) == (400, "encoding")
    assert engine.bodies == []


@pytest.mark.parametrize("text", ['[{"a": [1, 2]}, "b:c"], ', 'say \\"[{:,\\" and [,'])
def test_a_prompt_may_hold_any_signs(text: str) -> None:
    body = orjson.dumps(BODY | {"messages": [{"role": "user", "content": text * 200_000}]})
    assert parse(CHAT, body).model == "chat"


SIGNS = st.text(st.sampled_from('[]{}:,"\\ax'))
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | SIGNS,
    lambda inner: st.lists(inner) | st.dictionaries(SIGNS, inner),
    max_leaves=40,
)


@given(VALUES)
def test_no_string_hides_a_value(value: Any) -> None:
    assert memory._STRING.sub(b"", orjson.dumps(value)).decode() == without_strings(value)


def without_strings(value: Any) -> str:
    """Write JSON, and leave out each string."""
    if isinstance(value, dict):
        return "{" + ",".join(":" + without_strings(v) for v in value.values()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(without_strings, value)) + "]"
    return "" if isinstance(value, str) else json.dumps(value)
