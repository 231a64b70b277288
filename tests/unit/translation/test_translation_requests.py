"""OpenAI's chat requests in Anthropic's words, against the types that its SDK publishes."""

from typing import Any

import orjson
import published
import pytest
from features import BASE, CHATS, HI, MODEL, Chat
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.provider import ProviderType
from overspill.gateway.call import CHAT, COMPLETIONS, EMBEDDINGS, parse
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


@given(SAYING)
def test_no_member_of_a_message_is_dropped_in_silence(extra: Fields) -> None:
    known = {"role", "content"}
    message = {k: v for k, v in extra.items() if k not in known} | HI
    if message == HI:
        assert messages_of({"messages": [message]}, MODEL) == BASE
        return
    with pytest.raises(Unsupported, match=r"messages\[0\]\."):
        messages_of({"messages": [message]}, MODEL)
