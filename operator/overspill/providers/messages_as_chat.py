"""An Anthropic Messages answer as an OpenAI chat completion, whole or streamed.

https://platform.claude.com/docs/en/build-with-claude/streaming
https://platform.openai.com/docs/api-reference/chat-streaming
"""

import time
from typing import Any

import orjson

from overspill.api import sse
from overspill.providers.base import Fields

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
PING = b": ping\n\n"  # it shows that the provider is at work, and goes on as such


class MessagesAsChat:
    """Translates one answer."""

    def __init__(self) -> None:
        self._head: Fields = {}
        self._usage: Fields = {}
        self._calls = -1  # index of the newest tool call

    def whole(self, answer: Fields) -> Fields:
        """Return a chat completion."""
        blocks = answer["content"]
        message = {
            "role": "assistant",
            "content": _joined(blocks, "text") or None,
            "reasoning_content": _joined(blocks, "thinking") or None,
            "tool_calls": [_call(b) for b in blocks if b["type"] == "tool_use"] or None,
        }
        kept = {k: v for k, v in message.items() if v is not None or k == "content"}
        choice = {"index": 0, "message": kept, "finish_reason": FINISH[answer["stop_reason"]]}
        head = head_of(answer, "chat.completion")
        return {**head, "choices": [choice], "usage": usage_of(answer["usage"])}

    def event(self, data: bytes) -> bytes:
        """Return the chunks that one event becomes."""
        if not data:
            return b""
        event = orjson.loads(data)
        match event["type"]:
            case "message_start":
                message = event["message"]
                self._head = head_of(message, "chat.completion.chunk")
                self._usage = dict(message["usage"])
                return self._chunk({"role": "assistant", "content": ""})
            case "content_block_start":
                return self._begin(event["content_block"])
            case "content_block_delta":
                return self._delta(event["delta"])
            case "message_delta":
                self._usage |= {k: v for k, v in event["usage"].items() if v is not None}
                return self._chunk({}, FINISH[event["delta"]["stop_reason"]])
            case "message_stop":
                usage = {**self._head, "choices": [], "usage": usage_of(self._usage)}
                return sse.json_event(usage) + sse.DONE
            case "error":
                return sse.json_event({"error": event["error"]})
        return PING

    def _begin(self, block: Fields) -> bytes:
        if block["type"] != "tool_use":
            return self._said(block.get("text"), block.get("thinking"))
        self._calls += 1
        call = {"index": self._calls, "id": block["id"], "type": "function",
                "function": {"name": block["name"], "arguments": ""}}  # fmt: skip
        return self._chunk({"tool_calls": [call]})

    def _delta(self, delta: Fields) -> bytes:
        if delta["type"] != "input_json_delta":
            return self._said(delta.get("text"), delta.get("thinking"))
        call = {"index": self._calls, "function": {"arguments": delta["partial_json"]}}
        return self._chunk({"tool_calls": [call]})

    def _said(self, text: Any, thinking: Any) -> bytes:
        if text:
            return self._chunk({"content": text})
        return self._chunk({"reasoning_content": thinking}) if thinking else PING

    def _chunk(self, delta: Fields, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return sse.json_event({**self._head, "choices": [choice]})


def usage_of(usage: Fields) -> Fields:
    """Return Anthropic's usage in OpenAI's form, whose prompt counts what was cached too."""
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    prompt = usage["input_tokens"] + cached + written
    completion = usage["output_tokens"]
    thought = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    found: Fields = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    if written:
        found["prompt_tokens_details"]["cache_write_tokens"] = written
    if thought is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": thought}
    return found


def head_of(message: Fields, kind: str) -> Fields:
    created = int(time.time())
    return {"id": message["id"], "object": kind, "created": created, "model": message["model"]}


def _joined(blocks: list[Fields], kind: str) -> str:
    return "".join(block[kind] for block in blocks if block["type"] == kind)


def _call(block: Fields) -> Fields:
    arguments = orjson.dumps(block["input"]).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}
