"""An OpenAI chat completion as an Anthropic Messages answer, whole or streamed.

https://platform.openai.com/docs/api-reference/chat-streaming
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import orjson

from overspill.ledger.prices import completion_of
from overspill.providers.base import Fields

STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_THOUGHTS = ("reasoning_content", "reasoning")  # llama.cpp and most; newer vLLM


class ChatAsMessages:
    """Translates one answer."""

    def __init__(self) -> None:
        self._block = -1  # index of the newest
        self._kind = ""  # of the open block, "" when none is
        self._call: Any = None  # the tool call that the open block is
        self._begun, self._called = False, False
        self._stop: Fields = {"stop_reason": "end_turn", "stop_sequence": None}
        self._usage = usage_of(None)

    def whole(self, answer: Fields) -> Fields:
        """Return a message."""
        choice = answer["choices"][0]
        message = choice["message"]
        blocks: list[Fields] = []
        if thought := _thought(message):
            blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
        if said := message.get("content") or message.get("refusal"):
            blocks.append({"type": "text", "text": said})
        calls = message.get("tool_calls") or ()
        blocks += [_use(call) for call in calls]
        return {
            **_head(answer),
            "content": blocks,
            **_stop(choice, bool(calls)),
            "usage": usage_of(answer.get("usage")),
        }

    def event(self, data: bytes) -> bytes:
        """Return the events that one chunk becomes."""
        if not data:
            return b": ping\n\n"
        if data == b"[DONE]":
            return self._end()
        chunk = orjson.loads(data)
        if chunk.get("error") and not chunk.get("choices"):
            return event({"type": "error", "error": _error(chunk["error"])})
        # What comes before the first choice has no id yet (Azure: what it thinks of the prompt).
        out = self._start(chunk) if chunk["choices"] and not self._begun else b""
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        for choice in chunk["choices"]:
            out += self._delta(choice.get("delta") or {})
            if choice.get("finish_reason"):
                self._stop = _stop(choice, self._called)
        return out

    def _start(self, chunk: Fields) -> bytes:
        self._begun = True
        stop = {"stop_reason": None, "stop_sequence": None}
        message = {**_head(chunk), "content": [], **stop, "usage": usage_of(None)}
        return event({"type": "message_start", "message": message})

    def _delta(self, delta: Fields) -> bytes:
        out = b""
        if thought := _thought(delta):
            out += self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            out += self._more({"type": "thinking_delta", "thinking": thought})
        if said := delta.get("content") or delta.get("refusal"):
            out += self._open("text", {"type": "text", "text": ""})
            out += self._more({"type": "text_delta", "text": said})
        for call in delta.get("tool_calls") or ():
            out += self._tool(call)
        return out

    def _tool(self, call: Fields) -> bytes:
        """Go on with a tool call, or begin one: it is another block, also after one of its kind.

        :raises ValueError: when it goes on with one that has ended.
        """
        out, function = b"", call.get("function") or {}
        if self._kind != "tool_use" or call["index"] != self._call:
            self._call, self._called = call["index"], True
            if not call.get("id"):
                raise ValueError("a tool call without a beginning")
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            out = self._close() + self._open("tool_use", block)
        if arguments := function.get("arguments"):
            out += self._more({"type": "input_json_delta", "partial_json": arguments})
        return out

    def _open(self, kind: str, block: Fields) -> bytes:
        if self._kind == kind:
            return b""
        out = self._close()
        self._kind, self._block = kind, self._block + 1
        start = {"type": "content_block_start", "index": self._block, "content_block": block}
        return out + event(start)

    def _more(self, delta: Fields) -> bytes:
        return event({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return event({"type": "content_block_stop", "index": self._block})

    def _end(self) -> bytes:
        if not self._begun:
            return b""  # nothing was answered that could end
        delta = {"type": "message_delta", "delta": self._stop, "usage": self._usage}
        return self._close() + event(delta) + event({"type": "message_stop"})


def event(data: Fields) -> bytes:
    """Return an event; Anthropic's carry their type as the name too."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), orjson.dumps(data))


def usage_of(usage: Any) -> Fields:
    """Return OpenAI's usage in Anthropic's form, which counts cached tokens apart.

    Of a usage of which a part is missing nothing is told, or it would pass for the whole.
    """
    given = usage or {}
    if None in (given.get("prompt_tokens"), given.get("completion_tokens")):
        given = {}
    cached = (given.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": (given.get("prompt_tokens") or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion_of(given) or 0,
    }


def _head(answer: Fields) -> Fields:
    return {
        "id": answer["id"],
        "type": "message",
        "role": "assistant",
        "model": answer["model"],
    }


def _thought(message: Fields) -> Any:
    return next((message[name] for name in _THOUGHTS if message.get(name)), None)


def _use(call: Fields) -> Fields:
    function = call["function"]
    arguments = orjson.loads(function["arguments"] or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("arguments of a tool that are no object")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _stop(choice: Fields, called: bool) -> Fields:
    """Return why it ended; vLLM says in ``stop_reason`` which sequence it was.

    Of a tool that the request named, OpenAI and vLLM say ``stop``; Anthropic's clients run a tool
    only when ``tool_use`` tells them to: https://github.com/vllm-project/vllm/pull/25054

    :param called: it called a tool.
    """
    finish, sequence = choice["finish_reason"], choice.get("stop_reason")
    if finish == "stop" and isinstance(sequence, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    reason = "tool_use" if finish == "stop" and called else STOPS[finish]
    return {"stop_reason": reason, "stop_sequence": None}


def _error(error: Any) -> Fields:
    message = error.get("message") if isinstance(error, dict) else error
    return {"type": "api_error", "message": str(message)}
