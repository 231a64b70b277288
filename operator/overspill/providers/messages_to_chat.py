"""An Anthropic Messages request as an OpenAI chat request, which engines and most APIs take.

Everything that is asked is said in the other API's words or refused by name. Left out without a
word are what changes no answer (``cache_control``, ``service_tier``, ``metadata`` beyond the user),
the signatures of earlier reasoning, which only the model that made them can read, and what
``reasoning_effort`` alone cannot say: the effort of an answer without thinking, the budget of one
with an effort.

https://platform.claude.com/docs/en/api/messages
https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Iterator
from typing import Any

import orjson

from overspill.providers.base import Fields, Unsupported

FIELDS = frozenset(
    {"model", "messages", "max_tokens", "system", "stream", "stop_sequences", "metadata"}
    | {"temperature", "top_p", "top_k", "tools", "tool_choice", "thinking", "output_config"}
    | {"cache_control", "service_tier"}
)
# Fields of a count of tokens: what is asked, without how it is to be answered.
COUNTED = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
    | {"cache_control"}
)
CACHE = "must be {type: ephemeral}, kept for 5m"
NO_WORD = "has no counterpart in the API of the engines"
_EFFORT = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
MAX_STOPS, MAX_STOP = 16, 1024
# Tokens of thinking up to which an effort is called low, and medium.
_LOW, _MEDIUM = 4_096, 16_384


def chat_of(fields: Fields) -> Fields:
    """Return the fields of a chat request.

    :param fields: of a Messages request, any JSON.
    :raises Unsupported: for the first thing that is wrong or cannot be said.
    """
    _cache("cache_control", fields.get("cache_control"))
    chat = {
        "model": fields.get("model"),
        "messages": [*_system("system", fields.get("system")), *_messages(fields.get("messages"))],
        "max_tokens": fields.get("max_tokens"),
        "stream": fields.get("stream"),
        "stop": _stops(fields.get("stop_sequences")),
        "user": _user(fields.get("metadata")),
        "temperature": _temperature(fields.get("temperature")),
        "top_p": fields.get("top_p"),
        "top_k": fields.get("top_k"),
        **_tools(fields),
        **_thinking(fields),
    }
    return {name: value for name, value in chat.items() if value is not None}


def _stops(stops: Any) -> Any:
    if stops is None or stops == []:
        return None
    if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
        raise Unsupported("stop_sequences", "must be a list of strings")
    if len(stops) > MAX_STOPS or any(len(s) > MAX_STOP for s in stops):
        raise Unsupported("stop_sequences", f"at most {MAX_STOPS}, of {MAX_STOP} characters each")
    return stops


def _temperature(value: Any) -> Any:
    if type(value) in (int, float) and not 0 <= value <= 1:
        raise Unsupported("temperature", "must be a number from 0 to 1")
    return value


def _user(metadata: Any) -> Any:
    if metadata is None:
        return None
    user = members("metadata", metadata, {"user_id"}).get("user_id")
    if user is not None and not isinstance(user, str):
        raise Unsupported("metadata.user_id", "must be a string")
    return user


def _thinking(fields: Fields) -> Fields:
    """Return effort and format: what thinking and output_config ask for."""
    thinking, output = _thinking_effort(fields.get("thinking")), fields.get("output_config")
    known = {} if output is None else members("output_config", output, {"effort", "format"})
    effort, wanted = _effort(known.get("effort")), known.get("format")
    return {
        "reasoning_effort": thinking if thinking == "none" else effort or thinking,
        "response_format": None if wanted is None else _format(wanted),
    }


def _thinking_effort(thinking: Any) -> str | None:
    """Return the effort that a budget of thinking comes to, ``none`` where thinking is off."""
    if thinking is None:
        return None
    known = members("thinking", thinking, {"type", "budget_tokens", "display"})
    kind, budget = known.get("type"), known.get("budget_tokens")
    if kind not in ("enabled", "adaptive", "disabled"):
        raise Unsupported("thinking.type", "must be enabled, adaptive or disabled")
    if kind == "disabled":
        return "none"
    if kind == "adaptive" or type(budget) is not int:
        return None
    return "low" if budget <= _LOW else "medium" if budget <= _MEDIUM else "high"


def _effort(effort: Any) -> str | None:
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in _EFFORT:
        raise Unsupported("output_config.effort", f"must be one of {', '.join(_EFFORT)}")
    return _EFFORT[effort]


def _format(wanted: Any) -> Fields:
    known = members("output_config.format", wanted, {"type", "schema"})
    if known.get("type") != "json_schema" or not isinstance(known.get("schema"), dict):
        raise Unsupported("output_config.format", "must be a json_schema with its schema")
    schema = {"name": "answer", "schema": known["schema"], "strict": True}
    return {"type": "json_schema", "json_schema": schema}


# tools


def _tools(fields: Fields) -> Fields:
    tools, choice = fields.get("tools"), fields.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise Unsupported("tools", "must be a list")
    found: Fields = {}
    if tools:
        found["tools"] = [_tool(f"tools[{i}]", tool) for i, tool in enumerate(tools)]
    if choice is not None:
        known = members("tool_choice", choice, {"type", "name", "disable_parallel_tool_use"})
        found["tool_choice"] = _choice(known)
        if known.get("disable_parallel_tool_use"):
            found["parallel_tool_calls"] = False
    return found


def _tool(where: str, tool: Any) -> Fields:
    if isinstance(tool, dict) and tool.get("type") not in (None, "custom"):
        raise Unsupported(f"{where}.type", "only tools of the client's own can be used")
    known = {"type", "name", "description", "input_schema", "strict", "cache_control"}
    given = members(where, tool, known)
    if not isinstance(given.get("name"), str) or not isinstance(given.get("input_schema"), dict):
        raise Unsupported(where, "must have a name and an input_schema")
    function = {
        "name": given["name"],
        "description": given.get("description"),
        "parameters": given["input_schema"],
        "strict": given.get("strict"),
    }
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }


def _choice(choice: Fields) -> Any:
    kind, name = choice.get("type"), choice.get("name")
    if kind == "tool" and isinstance(name, str):
        return {"type": "function", "function": {"name": name}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise Unsupported("tool_choice", "must be auto, any, none or a tool with its name")
    return _CHOICES[kind]


# messages


def _system(where: str, content: Any) -> list[Fields]:
    text = _text(where, content)
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Any) -> Iterator[Fields]:
    if not isinstance(messages, list):
        raise Unsupported("messages", "is required: a list of messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        known = members(where, message, {"role", "content"})
        role, content = known.get("role"), known.get("content")
        if content is None:
            raise Unsupported(f"{where}.content", "is required")
        if role == "user":
            yield from _user_turn(f"{where}.content", content)
        elif role == "assistant":
            yield _assistant(f"{where}.content", content)
        elif role == "system":
            yield from _system(f"{where}.content", content)
        else:
            raise Unsupported(f"{where}.role", "must be user, assistant or system")


def _user_turn(where: str, content: Any) -> Iterator[Fields]:
    """Yield the results of tools, then what the user says: OpenAI's order, and Anthropic's."""
    parts: list[Fields] = []
    for at, block in _blocks(where, content):
        kind = block["type"]
        if kind == "tool_result":
            if parts:
                raise Unsupported(at, "results of tools come first in their message")
            yield _tool_result(at, block)
        elif kind == "text":
            parts.append({"type": "text", "text": _said(at, block)})
        elif kind == "image":
            parts.append(_image(at, block))
        else:
            raise Unsupported(at, f"a block of type {str(kind)[:64]} {NO_WORD}")
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": "user", "content": parts[0]["text"]}
    elif parts:
        yield {"role": "user", "content": parts}


def _assistant(where: str, content: Any) -> Fields:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Fields] = []
    for at, block in _blocks(where, content):
        kind = block["type"]
        if kind == "text":
            texts.append(_said(at, block))
        elif kind == "thinking":
            thoughts.append(_thought(at, block))
        elif kind == "tool_use":
            calls.append(_call(at, block))
        elif kind != "redacted_thinking":
            raise Unsupported(at, f"a block of type {str(kind)[:64]} {NO_WORD}")
    message: Fields = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _thought(where: str, block: Fields) -> str:
    thought = members(where, block, {"type", "thinking", "signature"}).get("thinking")
    if not isinstance(thought, str):
        raise Unsupported(f"{where}.thinking", "must be a string")
    return thought


def _call(where: str, block: Fields) -> Fields:
    known = members(where, block, {"type", "id", "name", "input", "cache_control"})
    names, given = (known.get("id"), known.get("name")), known.get("input")
    if not all(isinstance(name, str) for name in names) or not isinstance(given, dict):
        raise Unsupported(where, "must have an id, a name and an input")
    try:
        arguments = orjson.dumps(given).decode()
    except orjson.JSONEncodeError:
        raise Unsupported(f"{where}.input", "nests too deep") from None
    function = {"name": known["name"], "arguments": arguments}
    return {"id": known["id"], "type": "function", "function": function}


def _tool_result(where: str, block: Fields) -> Fields:
    known = members(where, block, {"type", "tool_use_id", "content", "is_error", "cache_control"})
    text = _text(f"{where}.content", known.get("content"))
    if known.get("is_error"):
        text = f"Error: {text}"  # OpenAI's API has words for it only
    return {"role": "tool", "tool_call_id": known.get("tool_use_id"), "content": text}


def _image(where: str, block: Fields) -> Fields:
    source = members(where, block, {"type", "source", "cache_control"}).get("source")
    known = members(f"{where}.source", source, {"type", "media_type", "data"})
    kind, data = known.get("media_type"), known.get("data")
    if known.get("type") != "base64" or not isinstance(kind, str) or not isinstance(data, str):
        raise Unsupported(f"{where}.source", "an image must be sent as base64")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _text(where: str, content: Any) -> str:
    """Return a content that may hold nothing but text."""
    texts = []
    for at, block in _blocks(where, content):
        if block["type"] != "text":
            raise Unsupported(at, "only text can be said here")
        texts.append(_said(at, block))
    return "\n".join(texts)


def _said(where: str, block: Fields) -> str:
    text = members(where, block, {"type", "text", "cache_control", "citations"}).get("text")
    if not isinstance(text, str):
        raise Unsupported(f"{where}.text", "must be a string")
    return text


def _blocks(where: str, content: Any) -> Iterator[tuple[str, Fields]]:
    """Yield every block of a content with its name."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if blocks is None:
        return
    if not isinstance(blocks, list):
        raise Unsupported(where, "must be a string or a list of blocks")
    for index, block in enumerate(blocks):
        at = where if blocks is not content else f"{where}[{index}]"
        if not isinstance(block, dict) or "type" not in block:
            raise Unsupported(at, "must be a block with a type")
        yield at, block


def members(where: str, value: Any, known: set[str]) -> Fields:
    """Return an object that has no other members than these, or none that say anything.

    :raises Unsupported: with the name of another one.
    """
    if not isinstance(value, dict):
        raise Unsupported(where, "must be an object")
    for name, member in value.items():
        if name not in known and member not in (None, False, [], ""):
            raise Unsupported(f"{where}.{name[:64]}", NO_WORD)
    _cache(f"{where}.cache_control", value.get("cache_control"))
    return value


def _cache(where: str, control: Any) -> None:
    """What is kept for an hour costs another price than the one that is counted."""
    if control is None:
        return
    if not isinstance(control, dict) or control.keys() - {"type", "ttl"}:
        raise Unsupported(where, CACHE)
    if control.get("type") != "ephemeral" or control.get("ttl") not in (None, "5m"):
        raise Unsupported(where, CACHE)
