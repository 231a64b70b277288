"""Answers in the other API's words, both ways: whole and streamed they say the same."""

from contextlib import suppress
from typing import Any

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from anthropic_cloud import AnthropicCloud, _sse
from features import MODEL
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from overspill.api import sse
from overspill.providers.base import AnswerBroken, Fields
from overspill.providers.chat_as_messages import ChatAsMessages
from overspill.providers.chat_to_messages import messages_of
from overspill.providers.messages_as_chat import MessagesAsChat
from overspill.providers.messages_to_chat import chat_of
from overspill.providers.translated import Translated


class Recorded:
    """An answer that is all there, in pieces of any size."""

    def __init__(self, body: bytes, streams: bool, size: int = 2**20) -> None:
        self.body, self.streams, self.size, self.closed = body, streams, size, False

    async def read(self, seconds: float) -> bytes:
        piece, self.body = self.body[: self.size], self.body[self.size :]
        return piece

    def close(self) -> None:
        self.closed = True


async def read(answer: Translated) -> bytes:
    pieces = []
    while piece := await answer.read(1.0):
        pieces.append(piece)
    return b"".join(pieces)


async def whole(cloud: AnthropicCloud) -> Fields:
    """Return a unary answer as OpenAI's client gets it."""
    body = orjson.dumps(cloud._message({"model": MODEL}))
    answer = Translated(Recorded(body, streams=False), MessagesAsChat())
    found: Fields = orjson.loads(await read(answer))
    ChatCompletion.model_validate(found)
    return found


async def streamed(cloud: AnthropicCloud, size: int = 2**20) -> Fields:
    """Return what OpenAI's client makes of the same answer as a stream."""
    body = b"".join(map(_sse, cloud.events({"model": MODEL})))
    data = await read(Translated(Recorded(body, streams=True, size=size), MessagesAsChat()))
    events = [sse.data_of(event) for event in sse.EventSplitter().feed(data)]
    assert events[-1] == b"[DONE]"
    return added([orjson.loads(e) for e in events[:-1] if e])


def added(chunks: list[Fields]) -> Fields:
    """Add the chunks of a stream up to a whole answer, as OpenAI's SDK does."""
    message: Fields = {"role": "assistant", "content": None}
    calls: list[Fields] = []
    finish = usage = None
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish = choice["finish_reason"] or finish
            for name in ("content", "reasoning_content"):
                if said := choice["delta"].get(name):
                    message[name] = (message.get(name) or "") + said
            for call in choice["delta"].get("tool_calls", ()):
                if call["index"] == len(calls):
                    calls.append({k: v for k, v in call.items() if k != "index"})
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = calls
    return {"message": message, "finish_reason": finish, "usage": usage}


def plain(answer: Fields) -> Fields:
    choice = answer["choices"][0]
    return {k: choice[k] for k in ("message", "finish_reason")} | {"usage": answer["usage"]}


TEXT = {"type": "text", "text": "Oslo: rain"}
THOUGHT = {"type": "thinking", "thinking": "which city?", "signature": "c2ln"}
USES = [
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
    {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {"zone": "CET"}},
]
CALLS = [
    {"id": "toolu_1", "type": "function",
     "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
    {"id": "toolu_2", "type": "function",
     "function": {"name": "time", "arguments": '{"zone":"CET"}'}},
]  # fmt: skip
ANSWERS: list[tuple[list[Fields], str, Fields, str]] = [
    # blocks, stop_reason, message, finish_reason
    ([TEXT], "end_turn", {"content": "Oslo: rain"}, "stop"),
    ([TEXT], "stop_sequence", {"content": "Oslo: rain"}, "stop"),
    ([TEXT], "max_tokens", {"content": "Oslo: rain"}, "length"),
    ([TEXT], "model_context_window_exceeded", {"content": "Oslo: rain"}, "length"),
    ([], "refusal", {"content": None}, "content_filter"),
    ([THOUGHT, TEXT], "end_turn",
     {"content": "Oslo: rain", "reasoning_content": "which city?"}, "stop"),
    ([TEXT, *USES], "tool_use", {"content": "Oslo: rain", "tool_calls": CALLS}, "tool_calls"),
    (USES, "tool_use", {"content": None, "tool_calls": CALLS}, "tool_calls"),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "stop", "message", "finish"), ANSWERS)
async def test_an_answer_in_openais_words(
    blocks: list[Fields], stop: str, message: Fields, finish: str
) -> None:
    cloud = AnthropicCloud(content=blocks, stop_reason=stop)
    found = plain(await whole(cloud))
    assert found["message"] == {"role": "assistant"} | message
    assert found["finish_reason"] == finish
    assert await streamed(cloud) == found


async def test_usage_counts_what_was_cached_into_the_prompt() -> None:
    cloud = AnthropicCloud()
    cloud.usage |= {"cache_creation_input_tokens": 100}
    cloud.usage["output_tokens_details"] = {"thinking_tokens": 2}
    usage = (await whole(cloud))["usage"]
    assert usage == {
        "prompt_tokens": 110, "completion_tokens": 4, "total_tokens": 114,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip


async def test_an_error_in_a_stream_stays_one() -> None:
    body = _sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    data = await read(Translated(Recorded(body, streams=True), MessagesAsChat()))
    assert sse.parse(sse.data_of(data))["error"]["type"] == "overloaded_error"


JSON = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "message", "usage", "delta", "content", "content_block"]),
            inner,
        )
    ),
    max_leaves=8,
)
KINDS = ["message_start", "content_block_start", "content_block_delta", "message_delta", "x"]
MORE = st.dictionaries(st.sampled_from(["message", "delta", "usage"]), JSON)
EVENTS = st.builds(lambda kind, more: {"type": kind} | more, st.sampled_from(KINDS), MORE)


@settings(max_examples=50)
@given(EVENTS | JSON)
async def test_what_is_no_answer_breaks_it_and_nothing_else(event: Any) -> None:
    data = orjson.dumps(event)
    for body, streams in ((data, False), (b"data: %b\n\n" % data, True)):
        with suppress(AnswerBroken):
            await read(Translated(Recorded(body, streams), MessagesAsChat()))


WORDS = st.text(min_size=1, max_size=12)
NUMBERS = st.integers(-(2**63), 2**64 - 1)
INPUT = st.dictionaries(st.text(max_size=5), NUMBERS | WORDS | st.lists(WORDS, max_size=2))
CALL = st.builds(
    lambda number, name, given: {
        "id": f"call_{number}", "type": "function",
        "function": {"name": name, "arguments": orjson.dumps(given).decode()},
    },
    st.integers(0, 99), st.from_regex(r"[a-z_]{1,8}", fullmatch=True), INPUT,
)  # fmt: skip


def replayed(message: Fields) -> AnthropicCloud:
    """Return a cloud that answers what the assistant had said in the conversation."""
    body = messages_of({"messages": [{"role": "user", "content": "?"}, message]}, MODEL)
    content = body["messages"][1]["content"]
    stop = "tool_use" if message.get("tool_calls") else "end_turn"
    return AnthropicCloud(content=content, stop_reason=stop)


@settings(max_examples=50)
@given(WORDS, st.lists(CALL, max_size=3), st.integers(1, 40))
async def test_text_and_tool_calls_survive_the_way_there_and_back(
    said: str, calls: list[Fields], size: int
) -> None:
    message: Fields = {"role": "assistant", "content": said}
    if calls:
        message["tool_calls"] = calls
    cloud = replayed(message)
    found = plain(await whole(cloud))
    assert found["message"] == message
    assert await streamed(cloud, size) == found


# The other way: OpenAI's answers in Anthropic's words.

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
STOPS = [
    # finish_reason, more of the choice, stop_reason, stop_sequence
    ("stop", {}, "end_turn", None),
    ("stop", {"stop_reason": "END"}, "stop_sequence", "END"),
    ("stop", {"stop_reason": 151645}, "end_turn", None),
    ("length", {}, "max_tokens", None),
    ("tool_calls", {}, "tool_use", None),
    ("content_filter", {}, "refusal", None),
]


def completion(message: Fields, finish: str = "stop", **more: Any) -> Fields:
    choice = {"index": 0, "message": message, "finish_reason": finish} | more
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
             "prompt_tokens_details": {"cached_tokens": 3}}  # fmt: skip
    return {"id": "c", "model": MODEL, "choices": [choice], "usage": usage}


def chunked(answer: Fields) -> bytes:
    """Return a completion as a stream of chunks."""
    (choice,) = answer["choices"]
    message = choice.pop("message")
    deltas: list[Fields] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        deltas += [{name: character} for character in message.get(name) or ""]
    for index, call in enumerate(message.get("tool_calls", ())):
        function = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, **call, "function": function}]})
        for character in call["function"]["arguments"]:
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": character}}]})
    chunks = [{"delta": delta, "finish_reason": None} for delta in deltas]
    events = [answer | {"choices": [c], "usage": None} for c in [*chunks, {"delta": {}} | choice]]
    events.append(answer | {"choices": []})
    return b"".join(b"data: %b\n\n" % orjson.dumps(e) for e in events) + sse.DONE


async def message_of(answer: Fields) -> Fields:
    """Return a completion as Anthropic's client gets it."""
    data = await read(Translated(Recorded(orjson.dumps(answer), streams=False), ChatAsMessages()))
    found: Fields = orjson.loads(data)
    Message.model_validate(found)
    return found


async def streamed_message_of(answer: Fields, size: int = 2**20, before: bytes = b"") -> Fields:
    """Return what Anthropic's SDK makes of the same completion as a stream."""
    body = before + chunked(answer)
    data = await read(Translated(Recorded(body, streams=True, size=size), ChatAsMessages()))
    snapshot, buffers = None, {}
    for event in sse.EventSplitter().feed(data):
        parsed = orjson.loads(sse.data_of(event))
        assert event.startswith(b"event: %b\n" % parsed["type"].encode())
        typed: Any = EVENT.validate_python(parsed)
        snapshot = accumulate_event(event=typed, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return snapshot.model_dump(exclude_none=True)


@pytest.mark.parametrize(("finish", "more", "stop", "sequence"), STOPS)
async def test_why_an_answer_ended(finish: str, more: Fields, stop: str, sequence: Any) -> None:
    found = await message_of(completion({"role": "assistant", "content": "a"}, finish, **more))
    assert (found["stop_reason"], found["stop_sequence"]) == (stop, sequence)
    assert found["usage"] == {
        "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3,
        "output_tokens": 4,
    }  # fmt: skip


CALLED_STOPS = [
    # finish_reason, more of the choice, stop_reason
    ("tool_calls", {}, "tool_use"),
    ("stop", {}, "tool_use"),  # the request named the tool
    ("stop", {"stop_reason": 151645}, "tool_use"),
    ("stop", {"stop_reason": "END"}, "stop_sequence"),
    ("length", {}, "max_tokens"),
]


@pytest.mark.parametrize(("finish", "more", "stop"), CALLED_STOPS)
async def test_why_an_answer_with_a_tool_call_ended(finish: str, more: Fields, stop: str) -> None:
    """An agent runs the tool only if it is told tool_use."""
    message = {"role": "assistant", "content": None, "tool_calls": CALLS[:1]}
    found = await message_of(completion(message, finish, **more))
    assert (found["stop_reason"], found["content"]) == (stop, USES[:1])
    streamed = await streamed_message_of(completion(message, finish, **more))
    assert (streamed["stop_reason"], streamed["content"]) == (stop, USES[:1])


# What Azure says of the prompt before it answers.
AZURE_FIRST = {"choices": [], "created": 0, "id": "", "model": "", "object": "",
               "prompt_filter_results": [{"prompt_index": 0}]}  # fmt: skip


async def test_a_message_begins_with_the_first_choice() -> None:
    first = b"data: %b\n\n" % orjson.dumps(AZURE_FIRST)
    answer = completion({"role": "assistant", "content": "a"})
    found = await streamed_message_of(answer, before=first)
    assert (found["id"], found["model"]) == ("c", MODEL)
    nothing = Recorded(first + sse.DONE, streams=True)
    assert await read(Translated(nothing, ChatAsMessages())) == b"", "an end without a beginning"


@settings(max_examples=30)
@given(WORDS, st.none() | WORDS, st.lists(CALL, max_size=3), st.integers(1, 400))
async def test_text_thoughts_and_tool_calls_survive_anthropics_client(
    said: str, thought: str | None, calls: list[Fields], size: int
) -> None:
    """What an engine said comes back as it was when the client sends it in the next turn."""
    message: Fields = {"role": "assistant", "content": said}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    found = await message_of(completion(message))
    turns = [{"role": "assistant", "content": found["content"]}]
    assert chat_of({"messages": turns})["messages"] == [message]
    streamed = await streamed_message_of(completion(message), size)
    assert streamed["content"] == found["content"]
    assert streamed["stop_reason"] == ("tool_use" if calls else "end_turn")
    assert streamed["usage"] == found["usage"]


CHUNK = st.sampled_from(["choices", "delta", "message", "tool_calls", "usage", "error", "content"])
CHUNKS = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CHUNK, inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(CHUNKS)
async def test_what_is_no_completion_breaks_it_and_nothing_else(chunk: Any) -> None:
    data = orjson.dumps(chunk)
    for body, streams in ((data, False), (b"data: %b\n\n" % data, True)):
        with suppress(AnswerBroken):
            await read(Translated(Recorded(body, streams), ChatAsMessages()))


async def test_a_tool_call_that_goes_on_after_its_end_is_no_answer() -> None:
    calls = [{"index": i, "id": "a", "function": {"name": "f", "arguments": ""}} for i in (0, 1)]
    late = {"index": 0, "function": {"arguments": "{}"}}
    head = {"id": "c", "model": MODEL}
    chunks = [head | {"choices": [{"delta": {"tool_calls": [c]}}]} for c in [*calls, late]]
    body = b"".join(b"data: %b\n\n" % orjson.dumps(c) for c in chunks)
    with pytest.raises(AnswerBroken, match="none of this provider's API"):
        await read(Translated(Recorded(body, streams=True), ChatAsMessages()))
