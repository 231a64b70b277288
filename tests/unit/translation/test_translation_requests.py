"""Requests in another API's words, against the types that Anthropic's SDK publishes."""

from contextlib import suppress
from typing import Any

import orjson
import published
import pytest
from features import (
    ARGUMENTS,
    BASE,
    CHAT_BASE,
    CHATS,
    HI,
    MESSAGES,
    MODEL,
    Chat,
    Messages,
    called,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.api.provider import ProviderType
from overspill.gateway.call import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, parse
from overspill.gateway.call import MESSAGES as ENDPOINT
from overspill.gateway.errors import ApiError
from overspill.providers import anthropic
from overspill.providers.base import Fields, Request, Unsupported
from overspill.providers.chat_to_messages import messages_of
from overspill.providers.client import unsupported

PATH = "/chat/completions"
NAMES = [case.feature for case in CHATS]


@pytest.mark.parametrize("case", CHATS, ids=NAMES)
def test_a_chat_in_anthropics_words(case: Chat) -> None:
    found = unsupported(ProviderType.ANTHROPIC, Request(PATH, case.fields))
    if isinstance(case.expected, str):
        assert found is not None
        assert found.field == case.expected
        return
    assert found is None
    body = messages_of(case.fields, MODEL)
    assert body == BASE | case.expected
    published.check(body)


@pytest.mark.parametrize("case", CHATS, ids=NAMES)
def test_the_gateway_lets_it_in_and_openai_takes_it(case: Chat) -> None:
    assert parse(CHAT, orjson.dumps(case.fields)).fields == case.fields
    found = unsupported(ProviderType.OPENAI, Request(PATH, case.fields))
    assert (found.field if found else "") == case.openai


@pytest.mark.parametrize(("endpoint", "field"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_only_conversations_go_to_anthropic(endpoint: Any, field: str) -> None:
    call = parse(endpoint, orjson.dumps({"model": "m", field: "hi"}))
    found = unsupported(ProviderType.ANTHROPIC, call.request)
    assert found is not None
    assert found.field == field


@pytest.mark.parametrize("case", MESSAGES, ids=[case.feature for case in MESSAGES])
def test_a_messages_request_in_openais_words(case: Messages) -> None:
    if isinstance(case.expected, str):
        with pytest.raises(ApiError) as info:
            parse(ENDPOINT, orjson.dumps(case.fields))
        assert (info.value.status, info.value.param) == (400, case.expected)
        return
    published.check(case.fields)
    call = parse(ENDPOINT, orjson.dumps(case.fields))
    assert call.fields == CHAT_BASE | case.expected
    asked = {"stream_options": {"include_usage": True}} if call.stream else {}
    assert orjson.loads(call.body) == call.fields | asked
    found = unsupported(ProviderType.OPENAI, call.request)
    assert (found.field if found else "") == case.openai


@pytest.mark.parametrize("case", MESSAGES, ids=[case.feature for case in MESSAGES])
def test_a_messages_request_goes_to_anthropic_as_it_came(case: Messages) -> None:
    if isinstance(case.expected, str):
        return
    request = parse(ENDPOINT, orjson.dumps(case.fields)).request
    assert anthropic.body_for(request, MODEL) == case.fields | {"model": MODEL}


def test_thoughts_that_nobody_signed_stay_here() -> None:
    """An own engine signs none; Anthropic would refuse them."""
    said = {"type": "text", "text": "yes?"}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": ""}, said]
    turns = [HI, {"role": "assistant", "content": blocks}, HI]
    body = orjson.dumps({"model": "m", "max_tokens": 5, "messages": turns})
    sent = anthropic.body_for(parse(ENDPOINT, body).request, MODEL)
    assert sent["messages"][1]["content"] == [said]


BAD = [
    # Messages request, the field that is named
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"messages": "hi"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [HI | {"name": "ann"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 0}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
     "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "a"}]}]},
     "messages[0].content[1]"),
    ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]},
     "messages[0].content[0].thinking"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]},
     "messages[0].content[0]"),
    ({"system": 5}, "system"),
    ({"system": [{"type": "image"}]}, "system[0]"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ({"temperature": 1.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_k": 1.5}, "top_k"),
    ({"stream": 1}, "stream"),
    ({"metadata": {"user_id": 5}}, "metadata.user_id"),
    ({"metadata": {"x": 5}}, "metadata.x"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"name": "a"}]}, "tools[0]"),
    ({"tools": [{"name": "a", "input_schema": {}, "defer_loading": True}]},
     "tools[0].defer_loading"),
    ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ({"thinking": {"type": "between_tools"}}, "thinking.type"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "text"}}}, "output_config.format"),
    ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_control"),
    ({"chat_template": "x"}, "chat_template"),
    ({"mcp_servers": [{"url": "http://169.254.169.254/"}]}, "mcp_servers"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "field"), BAD)
def test_a_bad_field_of_a_messages_request_is_named(asked: Fields, field: str) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": [HI]} | asked
    with pytest.raises(ApiError) as info:
        parse(ENDPOINT, orjson.dumps(body))
    assert (info.value.status, info.value.param) == (400, field)


def test_a_count_of_tokens_goes_to_an_engine_as_it_came() -> None:
    asked = {"model": "m", "messages": [HI], "system": "a", "tools": []}
    call = parse(COUNT_TOKENS, orjson.dumps(asked))
    assert (orjson.loads(call.body), call.engine_path) == (asked, b"/v1/messages/count_tokens")
    with pytest.raises(ApiError, match="max_tokens"):
        parse(COUNT_TOKENS, orjson.dumps(asked | {"max_tokens": 5}))


SAYING = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 9), max_size=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "function", "text", "name", "role"]), inner)
    ),
    max_leaves=6,
)
MEMBERS = st.sampled_from(["content", "tool_calls", "name", "refusal", "x", "tool_call_id"])
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "function"])
ODD = st.builds(lambda role, more: more | {"role": role}, ROLES, st.dictionaries(MEMBERS, JSON))


@settings(max_examples=50)
@given(
    st.lists(ODD, min_size=1, max_size=3),
    st.dictionaries(
        st.sampled_from(["tools", "tool_choice", "response_format", "reasoning_effort"]), JSON
    ),
)
def test_whatever_was_let_in_is_said_or_refused_by_name(
    messages: list[Fields], more: Fields
) -> None:
    try:
        call = parse(CHAT, orjson.dumps({"model": "m", "messages": messages} | more))
    except Exception:
        return
    found = unsupported(ProviderType.ANTHROPIC, call.request)
    assert found is None or found.field.split("[")[0].split(".")[0] in call.fields


PARTS = st.sampled_from(["type", "text", "source", "content", "input", "name", "id"])
BLOCKS = st.dictionaries(PARTS, JSON | st.sampled_from(["text", "image", "tool_use", "thinking"]))
TURNS = st.builds(
    lambda role, content: {"role": role, "content": content}, ROLES, JSON | st.lists(BLOCKS)
)


@settings(max_examples=50)
@given(
    st.lists(TURNS, min_size=1, max_size=3),
    st.dictionaries(
        st.sampled_from(["tools", "tool_choice", "thinking", "output_config", "metadata"]), JSON
    ),
)
def test_any_messages_request_is_read_or_refused_by_name(turns: list[Fields], more: Fields) -> None:
    body = orjson.dumps({"model": "m", "max_tokens": 5, "messages": turns} | more)
    with suppress(ApiError, Unsupported):
        call = parse(ENDPOINT, body)
        anthropic.body_for(call.request, "m")
        messages_of({**call.fields, "tools": None}, "m")


@given(SAYING)
def test_no_member_of_a_message_is_dropped_in_silence(extra: Fields) -> None:
    known = {"role", "content"}
    message = {k: v for k, v in extra.items() if k not in known} | HI
    if message == HI:
        assert messages_of({"messages": [message]}, MODEL) == BASE
        return
    with pytest.raises(Unsupported, match=r"messages\[0\]\."):
        messages_of({"messages": [message]}, MODEL)


def test_arguments_that_nest_too_deep_for_a_body_are_refused_by_name() -> None:
    """What cannot be written must be known before the provider is chosen."""

    def sent(depth: int) -> bytes:
        arguments = '{"a":' * depth + "1" + "}" * depth
        return orjson.dumps(messages_of({"messages": [HI, called(arguments)]}, MODEL))

    assert sent(249)
    for depth in (250, 254, 2000):
        with pytest.raises(Unsupported) as info:
            sent(depth)
        assert info.value.field == ARGUMENTS


def test_arguments_of_calls_have_a_bound_together() -> None:
    """They are JSON in a string, and nobody knows before parsing how much memory that takes."""
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}" + " " * 400_000},
    }
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "c", "content": "x"}
    assert messages_of({"messages": [HI, turn, answer] * 2}, MODEL)
    with pytest.raises(Unsupported, match="arguments of tool calls"):
        messages_of({"messages": [HI, turn, answer] * 3}, MODEL)
