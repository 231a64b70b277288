"""An OpenAI chat request as an Anthropic Messages request.

Everything that is asked is said in the other API's words or refused by name; what is left out
without a word is listed in `neutral` and here: the reasoning of earlier turns, which only the
model that made it may be given back (it is signed), and texts that are empty.

https://platform.openai.com/docs/api-reference/chat/create
https://platform.claude.com/docs/en/api/messages
"""

import json
import re
from typing import Any

import orjson

from overspill.providers.base import Fields, Unsupported
from overspill.providers.neutral import says_nothing

# Anthropic's API wants a limit. This one every model there takes, and an answer that reaches it
# says so (finish_reason: length).
DEFAULT_MAX_TOKENS = 8192
# Of all tool calls together: they are JSON in a string, which takes up to 30 times as much parsed.
MAX_ARGUMENTS = 1 << 20  # characters
IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_DATA_URL = re.compile(r"data:([a-z/]+);base64,", re.IGNORECASE)
_EFFORT = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_TRANSLATED = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "user"}
    | {"temperature", "top_p", "top_k", "tools", "tool_choice", "parallel_tool_calls"}
    | {"response_format", "reasoning_effort"}
)


def messages_of(fields: Fields, model: str) -> Fields:
    """Return the body of a Messages request.

    :param fields: of a chat request whose types and bounds were checked.
    :raises Unsupported: for the first thing that the API cannot express.
    """
    for name, value in fields.items():
        if name not in _TRANSLATED and not says_nothing(name, value):
            raise Unsupported(name, "this provider's API has no such field")
    system, turns = _conversation(fields["messages"])
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    body = {
        "model": model,
        "max_tokens": limit or DEFAULT_MAX_TOKENS,
        "messages": turns,
        "system": system or None,
        "stream": fields.get("stream") or None,
        "stop_sequences": _stops(fields.get("stop")),
        "metadata": {"user_id": fields["user"]} if fields.get("user") else None,
        **_sampling(fields),
        **_tools(fields),
        **_thinking(fields.get("reasoning_effort")),
    }
    _set_format(body, fields.get("response_format"))
    return {name: value for name, value in body.items() if value is not None}


def _sampling(fields: Fields) -> Fields:
    temperature, top_k = fields.get("temperature"), fields.get("top_k")
    if temperature is not None and temperature > 1:
        raise Unsupported("temperature", "this provider's API knows 0 to 1")
    chosen = None if says_nothing("top_k", top_k) else top_k
    return {"temperature": temperature, "top_p": fields.get("top_p"), "top_k": chosen}


def _stops(stop: Any) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop
    if stops and not all(text.strip() for text in stops):
        raise Unsupported("stop", "this provider's API knows no stop sequence of white space only")
    return stops or None


def _thinking(effort: Any) -> Fields:
    """https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking"""
    if effort is None:
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not isinstance(effort, str) or effort not in _EFFORT:
        raise Unsupported("reasoning_effort", "must be none, or minimal to xhigh")
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _EFFORT[effort]}}


def _set_format(body: Fields, wanted: Any) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else ""
    if kind == "text":
        return
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise Unsupported("response_format", "this provider's API knows JSON by a schema only")
    form = {"type": "json_schema", "schema": schema["schema"]}
    body["output_config"] = body.get("output_config", {}) | {"format": form}


# tools


def _tools(fields: Fields) -> Fields:
    tools = fields.get("tools") or []
    if not isinstance(tools, list):
        raise Unsupported("tools", "must be a list")
    if not tools:
        return {}
    found = [_tool(f"tools[{i}]", tool) for i, tool in enumerate(tools)]
    choice = _tool_choice(fields.get("tool_choice"))
    if fields.get("parallel_tool_calls") is False:
        choice = {"disable_parallel_tool_use": True, **(choice or {"type": "auto"})}
        if choice["type"] == "none":
            del choice["disable_parallel_tool_use"]
    return {"tools": found, "tool_choice": choice}


def _tool(where: str, tool: Any) -> Fields:
    function = _member(where, tool, "function")
    name = f"{where}.function"
    only(where, tool, {"type", "function"})
    only(name, function, {"name", "description", "parameters", "strict"})
    if not isinstance(function.get("name"), str):
        raise Unsupported(f"{name}.name", "must be the name of a function")
    found = {
        "name": function["name"],
        "description": function.get("description"),
        "input_schema": function.get("parameters") or {"type": "object"},
        "strict": function.get("strict"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _tool_choice(choice: Any) -> Fields | None:
    if choice is None:
        return None
    words = {"auto": "auto", "none": "none", "required": "any"}
    if isinstance(choice, str) and choice in words:
        return {"type": words[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unsupported("tool_choice", "must be auto, none, required or the name of a function")
    return {"type": "tool", "name": function["name"]}


# messages


def _conversation(messages: list[Fields]) -> tuple[list[Fields], list[Fields]]:
    """Return the system prompt, and the turns; of one role in a row they are one turn."""
    system: list[Fields] = []
    turns: list[Fields] = []
    if sum(map(_argument_size, messages)) > MAX_ARGUMENTS:
        raise Unsupported(
            "messages", f"arguments of tool calls may have {MAX_ARGUMENTS} characters in all"
        )
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role, blocks = _turn(where, message)
        if role == "system" and not turns:
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise Unsupported("messages", "this provider's API wants more than a system prompt")
    return system, turns


def _turn(where: str, message: Fields) -> tuple[str, list[Fields]]:
    """Return whose turn a message is, and its blocks."""
    role = message["role"]
    if role in ("system", "developer"):
        only(where, message, {"role", "content"})
        return "system", _texts(where, message.get("content"))
    if role == "user":
        only(where, message, {"role", "content"})
        return "user", _parts(where, message.get("content"))
    if role == "assistant":
        return "assistant", _assistant(where, message)
    if role == "tool":
        return "user", [_tool_result(where, message)]
    raise Unsupported(f"{where}.role", "must be system, developer, user, assistant or tool")


def _assistant(where: str, message: Fields) -> list[Fields]:
    known = {"role", "content", "refusal", "tool_calls", "reasoning_content", "reasoning"}
    only(where, message, known)
    calls, refusal = message.get("tool_calls") or [], message.get("refusal")
    if not isinstance(calls, list):
        raise Unsupported(f"{where}.tool_calls", "must be a list")
    if not isinstance(refusal, str | None):
        raise Unsupported(f"{where}.refusal", "must be a string")
    return [
        *_texts(where, message.get("content")),
        *_texts(where, refusal),
        *(_tool_use(f"{where}.tool_calls[{i}]", call) for i, call in enumerate(calls)),
    ]


def _argument_size(message: Fields) -> int:
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    functions = [c.get("function") for c in calls if isinstance(c, dict)]
    texts = [f.get("arguments") for f in functions if isinstance(f, dict)]
    return sum(len(text) for text in texts if isinstance(text, str))


def _tool_use(where: str, call: Any) -> Fields:
    function = _member(where, call, "function")
    only(where, call, {"id", "type", "function", "index"})
    arguments = _object(function.get("arguments") or "{}")
    if arguments is None:
        raise Unsupported(f"{where}.function.arguments", "must be a JSON object, as a string")
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"),
            "input": arguments}  # fmt: skip


def _object(text: Any) -> Fields | None:
    """Parse a JSON object; None when it is none, or holds what could not be written again."""
    try:
        value = json.loads(text)  # orjson makes floats of integers beyond 64 bits
        orjson.dumps({"messages": [{"content": [{"input": value}]}]})  # as deep as it goes out
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _tool_result(where: str, message: Fields) -> Fields:
    only(where, message, {"role", "content", "tool_call_id", "name"})
    blocks = _texts(where, message.get("content"))
    result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
    return {**result, "content": blocks} if blocks else result


def _texts(where: str, content: Any) -> list[Fields]:
    """Return the blocks of a content that may hold nothing but text."""
    blocks = _parts(where, content)
    for index, block in enumerate(blocks):
        if block["type"] != "text":
            raise Unsupported(f"{where}.content[{index}]", "only text can be said here")
    return blocks


def _parts(where: str, content: Any) -> list[Fields]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(parts, list) or not all(isinstance(p, dict) and "type" in p for p in parts):
        raise Unsupported(f"{where}.content", "must be a string or a list of parts")
    blocks = [_part(f"{where}.content[{i}]", part) for i, part in enumerate(parts)]
    return [b for b in blocks if b.get("text") != ""]


def _part(where: str, part: Fields) -> Fields:
    kind = part["type"]
    if kind in ("text", "refusal"):
        only(where, part, {"type", kind})
        text = part.get(kind)
        if not isinstance(text, str):
            raise Unsupported(f"{where}.{kind}", "must be a string")
        return {"type": "text", "text": text}
    if kind == "image_url":
        return _image(where, part)
    raise Unsupported(where, f"this provider's API has no {kind}")


def _image(where: str, part: Fields) -> Fields:
    only(where, part, {"type", "image_url"})
    image = part["image_url"]
    if image.get("detail") not in (None, "auto", "high"):
        raise Unsupported(f"{where}.image_url.detail", "this provider's API knows one detail only")
    start = _DATA_URL.match(image["url"])
    if start is None or start[1].lower() not in IMAGES:
        raise Unsupported(f"{where}.image_url.url", f"must be base64 of {', '.join(IMAGES)}")
    data = image["url"][start.end() :]
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": start[1].lower(), "data": data},
    }


def only(where: str, value: Fields, known: set[str]) -> None:
    """Refuse a member that is not known and says something.

    :raises Unsupported: with its name.
    """
    for name, member in value.items():
        if name not in known and member not in (None, [], ""):
            raise Unsupported(f"{where}.{name[:64]}", "has no counterpart in this provider's API")


def _member(where: str, value: Any, name: str) -> Fields:
    """Return a member that must be an object."""
    member = value.get(name) if isinstance(value, dict) else None
    if not isinstance(member, dict):
        raise Unsupported(where, f"must be an object with {name}")
    return member
