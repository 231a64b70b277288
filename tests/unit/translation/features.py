"""What each target can say of what a client asks: the tables behind tests and docs.

``expected`` is what becomes of the request at Anthropic (beside the base below), or the field
that is named when it cannot be said there; ``openai`` is such a field at OpenAI-like targets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from overspill.api.provider import ModelInput, ProviderType
from overspill.gateway import call as call_of
from overspill.gateway.call import parse
from overspill.gateway.errors import ApiError
from overspill.providers.base import Request
from overspill.providers.chat_to_prediction import input_of
from overspill.providers.client import unsupported

Fields = dict[str, Any]

HI: Fields = {"role": "user", "content": "hi"}
MODEL, LIMIT = "claude-opus-4-6", 8192
PNG = "iVBORw0KGgo="
DATA_URL = f"data:image/png;base64,{PNG}"
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
SCHEMA: Fields = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: Fields = {
    "type": "function",
    "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA},
}
CALL: Fields = {
    "id": "call_1", "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
}  # fmt: skip
USE: Fields = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}


def text(said: str) -> Fields:
    """Return a text block."""
    return {"type": "text", "text": said}


def user(*blocks: Fields) -> Fields:
    """Return a user's turn."""
    return {"role": "user", "content": list(blocks)}


BASE: Fields = {"model": MODEL, "max_tokens": LIMIT, "messages": [user(text("hi"))]}
TOOLS: Fields = {"tools": [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}]}


@dataclass(frozen=True)
class Chat:
    """A chat request."""

    feature: str
    asked: Fields
    expected: Fields | str
    openai: str = ""

    @property
    def fields(self) -> Fields:
        """The whole request."""
        return {"model": "chat", "messages": [HI]} | self.asked


def image(**more: str) -> list[Fields]:
    """Return messages with an image."""
    part = {"type": "image_url", "image_url": {"url": DATA_URL, **more}}
    return [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]


SEEN = user(
    text("what?"),
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
)
TOLD = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
RESULT: Fields = {"type": "tool_result", "tool_use_id": "call_1", "content": [text("rain")]}

ARGUMENTS = "messages[1].tool_calls[0].function.arguments"


def called(arguments: str) -> Fields:
    """Return an assistant's turn that calls a tool."""
    function = {"name": "f", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [
        {"id": "a", "type": "function", "function": function},
    ]}  # fmt: skip


CHATS = [
    Chat("text", {}, {}),
    Chat("streams", {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    Chat(
        "conversations",
        {"messages": [HI, {"role": "assistant", "content": "yes?"}, HI, HI]},
        {
            "messages": [
                user(text("hi")),
                {"role": "assistant", "content": [text("yes?")]},
                user(text("hi"), text("hi")),
            ]
        },
    ),
    Chat(
        "system prompt",
        {"messages": [{"role": "system", "content": "be kind"}, HI]},
        {"system": [text("be kind")]},
    ),
    Chat(
        "developer prompt",
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}, HI]},
        {"system": [text("a")]},
    ),
    Chat(
        "system prompt later on",
        {"messages": [HI, {"role": "system", "content": "now in French"}]},
        {"messages": [user(text("hi")), {"role": "system", "content": [text("now in French")]}]},
    ),
    Chat("images, as data: URLs", {"messages": image()}, {"messages": [SEEN]}),
    Chat("images, detail high", {"messages": image(detail="high")}, {"messages": [SEEN]}),
    Chat(
        "images, detail low",
        {"messages": image(detail="low")},
        "messages[0].content[1].image_url.detail",
    ),
    Chat(
        "audio",
        {"messages": [{"role": "user", "content": [SOUND]}]},
        "messages[0].content[0]",
    ),
    Chat("names of speakers", {"messages": [HI | {"name": "ann"}]}, "messages[0].name"),
    Chat("tools", {"tools": [TOOL]}, TOOLS),
    Chat(
        "strict tools",
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}]},
    ),
    Chat("tool_choice auto", {"tools": [TOOL], "tool_choice": "auto"},
         TOOLS | {"tool_choice": {"type": "auto"}}),
    Chat("tool_choice none", {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
         TOOLS | {"tool_choice": {"type": "none"}}),
    Chat("tool_choice required", {"tools": [TOOL], "tool_choice": "required"},
         TOOLS | {"tool_choice": {"type": "any"}}),
    Chat(
        "tool_choice of one function",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        TOOLS | {"tool_choice": {"type": "tool", "name": "weather"}},
    ),
    Chat("tool_choice of several functions",
         {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
         "tool_choice"),
    Chat("one tool call at a time", {"tools": [TOOL], "parallel_tool_calls": False},
         TOOLS | {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    Chat("tools with a grammar", {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
         "tools[0]"),
    Chat("tools that the provider runs itself",
         {"tools": [TOOL, {"type": "web_search"}]}, "tools[1]", "tools[1].type"),
    Chat(
        "tool calls and their results",
        {
            "messages": [
                HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}, TOLD, HI,
            ],
            "tools": [TOOL],
        },
        TOOLS
        | {
            "messages": [
                user(text("hi")), {"role": "assistant", "content": [USE]}, user(RESULT, text("hi")),
            ]
        },
    ),
    Chat("tool calls whose arguments are no JSON", {"messages": [HI, called("{")]}, ARGUMENTS),
    Chat("tool calls with numbers beyond 64 bits",
         {"messages": [HI, called('{"n":123456789012345678901234567890}')]}, ARGUMENTS),
    Chat(
        "reasoning of earlier turns (not sent: its maker signs it)",
        {
            "messages": [
                HI, {"role": "assistant", "content": "yes?", "reasoning_content": "a greeting"}, HI,
            ]
        },
        {
            "messages": [
                user(text("hi")), {"role": "assistant", "content": [text("yes?")]},
                user(text("hi")),
            ]
        },
    ),
    Chat("functions, before there were tools", {"functions": [{"name": "f"}]}, "functions"),
    Chat("JSON by a schema",
         {"response_format": {"type": "json_schema",
                              "json_schema": {"name": "city", "schema": SCHEMA}}},
         {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    Chat("JSON of any kind", {"response_format": {"type": "json_object"}}, "response_format"),
    Chat("response_format text", {"response_format": {"type": "text"}}, {}),
    Chat("stop sequence", {"stop": "END"}, {"stop_sequences": ["END"]}),
    Chat("stop sequences", {"stop": ["END", "\n\nEND"]}, {"stop_sequences": ["END", "\n\nEND"]}),
    Chat("stop sequences of white space", {"stop": ["\n"]}, "stop"),
    Chat("max_tokens (8,192 at Anthropic, 4,096 at Replicate if not given)", {"max_tokens": 5},
         {"max_tokens": 5}),
    Chat("max_completion_tokens", {"max_completion_tokens": 6}, {"max_tokens": 6}),
    Chat("temperature up to 1, top_p", {"temperature": 0, "top_p": 0.5},
         {"temperature": 0, "top_p": 0.5}),
    Chat("temperature above 1", {"temperature": 1.5}, "temperature"),
    Chat("top_k", {"top_k": 20}, {"top_k": 20}, "top_k"),
    Chat("min_p", {"min_p": 0.05}, "min_p", "min_p"),
    Chat("repetition_penalty", {"repetition_penalty": 1.1}, "repetition_penalty",
         "repetition_penalty"),
    Chat("sampling at its defaults",
         {"n": 1, "top_k": -1, "min_p": 0, "frequency_penalty": 0, "logprobs": False}, {}),
    Chat("seed", {"seed": 7}, "seed"),
    Chat("several answers (n)", {"n": 2}, "n"),
    Chat("log probabilities", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
    Chat("logit_bias", {"logit_bias": {"5": -100}}, "logit_bias"),
    Chat("presence_penalty", {"presence_penalty": 0.5}, "presence_penalty"),
    Chat("frequency_penalty", {"frequency_penalty": 0.5}, "frequency_penalty"),
    Chat("reasoning_effort", {"reasoning_effort": "high"},
         {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
    Chat("reasoning_effort none", {"reasoning_effort": "none"},
         {"thinking": {"type": "disabled"}}),
    Chat("reasoning_effort and JSON by a schema",
         {"reasoning_effort": "minimal",
          "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
         {"thinking": {"type": "adaptive"},
          "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}}),
    Chat("verbosity", {"verbosity": "low"}, "verbosity"),
    Chat("user (not sent to Replicate: it changes no answer)", {"user": "u-1"},
         {"metadata": {"user_id": "u-1"}}),
    Chat("metadata, store, service_tier, prompt_cache_key (not sent: they change no answer)",
         {"metadata": {"a": "b"}, "store": True, "service_tier": "flex", "prompt_cache_key": "x"},
         {}),
]  # fmt: skip

# What Anthropic's clients ask, and what becomes of it in the form of engines: the other members of
# the chat request, or the field that is named.


@dataclass(frozen=True)
class Messages:
    """A Messages request."""

    feature: str
    asked: Fields
    expected: Fields | str
    openai: str = ""

    @property
    def fields(self) -> Fields:
        """The whole request."""
        return {"model": "chat", "max_tokens": 64, "messages": [HI]} | self.asked


CHAT_BASE: Fields = {"model": "chat", "max_tokens": 64, "messages": [HI]}
OWN_TOOL: Fields = {"name": "weather", "description": "of a city", "input_schema": SCHEMA}
PICTURE: Fields = {
    "type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}  # fmt: skip
CACHED: Fields = {"type": "ephemeral"}
FAR: Fields = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
PDF: Fields = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": PNG},
}
THOUGHT: Fields = {"type": "thinking", "thinking": "a greeting", "signature": "c2ln"}


def told(**more: Any) -> Fields:
    """Return a conversation whose last turn is the result of a tool."""
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"} | more
    return {"messages": [HI, {"role": "assistant", "content": [USE]}, user(result, text("hi"))]}


CALLED: list[Fields] = [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}]

MESSAGES = [
    Messages("text", {}, {}),
    Messages("streams", {"stream": True}, {"stream": True}),
    Messages("blocks of text", {"messages": [user(text("a"), text("b"))]},
             {"messages": [user(text("a"), text("b"))]}),
    Messages("system prompt", {"system": "be kind"},
             {"messages": [{"role": "system", "content": "be kind"}, HI]}),
    Messages("system prompt in blocks", {"system": [text("a"), text("b")]},
             {"messages": [{"role": "system", "content": "a\nb"}, HI]}),
    Messages("system prompt later on",
             {"messages": [HI, {"role": "system", "content": "now in French"}]},
             {"messages": [HI, {"role": "system", "content": "now in French"}]}),
    Messages("images in base64", {"messages": [user(text("what?"), PICTURE)]},
             {"messages": image()}),
    Messages("images at an address", {"messages": [user(FAR)]},
             "messages[0].content[0].source.url"),
    Messages("documents", {"messages": [user(PDF)]}, "messages[0].content[0]"),
    Messages("tools", {"tools": [OWN_TOOL]}, {"tools": [TOOL]}),
    Messages("tools that the API runs itself",
             {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    Messages("tool_choice auto", {"tools": [OWN_TOOL], "tool_choice": {"type": "auto"}},
             {"tools": [TOOL], "tool_choice": "auto"}),
    Messages("tool_choice any", {"tools": [OWN_TOOL], "tool_choice": {"type": "any"}},
             {"tools": [TOOL], "tool_choice": "required"}),
    Messages("tool_choice none", {"tools": [OWN_TOOL], "tool_choice": {"type": "none"}},
             {"tools": [TOOL], "tool_choice": "none"}),
    Messages("tool_choice of one tool",
             {"tools": [OWN_TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
             {"tools": [TOOL],
              "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    Messages("one tool call at a time",
             {"tools": [OWN_TOOL],
              "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
             {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}),
    Messages("tool calls and their results", told(), {"messages": [*CALLED, TOLD, HI]}),
    Messages("failed tools", told(is_error=True),
             {"messages": [*CALLED, TOLD | {"content": "Error: rain"}, HI]}),
    Messages("images as results of tools", told(content=[PICTURE]),
             "messages[2].content[0].content[0]"),
    Messages("reasoning of earlier turns",
             {"messages": [HI, {"role": "assistant", "content": [THOUGHT, text("yes?")]}, HI]},
             {"messages": [HI, {"role": "assistant", "content": "yes?",
                                "reasoning_content": "a greeting"}, HI]}),
    Messages("hidden reasoning of earlier turns (not sent on: nobody else can read it)",
             {"messages": [HI, {"role": "assistant", "content": [
                 {"type": "redacted_thinking", "data": "x"}, text("yes?")]}, HI]},
             {"messages": [HI, {"role": "assistant", "content": "yes?"}, HI]}),
    Messages("thinking with a budget", {"thinking": {"type": "enabled", "budget_tokens": 5000}},
             {"reasoning_effort": "medium"}),
    Messages("thinking, adaptive", {"thinking": {"type": "adaptive"}}, {}),
    Messages("thinking disabled (as `reasoning_effort: none`, which a model may refuse)",
             {"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
    Messages("thinking disabled, with an effort (which goes to Anthropic only)",
             {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}},
             {"reasoning_effort": "none"}),
    Messages("thinking with a budget, and an effort (the budget goes to Anthropic only)",
             {"thinking": {"type": "enabled", "budget_tokens": 5000},
              "output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    Messages("effort", {"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
    Messages("JSON by a schema",
             {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
             {"response_format": {"type": "json_schema", "json_schema": {
                 "name": "answer", "schema": SCHEMA, "strict": True}}}),
    Messages("stop sequences", {"stop_sequences": ["END"]}, {"stop": ["END"]}),
    Messages("temperature, top_p", {"temperature": 0.5, "top_p": 0.5},
             {"temperature": 0.5, "top_p": 0.5}),
    Messages("top_k", {"top_k": 20}, {"top_k": 20}, "top_k"),
    Messages("metadata.user_id", {"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
    Messages("cache_control for 5 minutes (engines cache by themselves)",
             {"system": [text("a") | {"cache_control": CACHED}]},
             {"messages": [{"role": "system", "content": "a"}, HI]}),
    Messages("cache_control for an hour",
             {"system": [text("a") | {"cache_control": CACHED | {"ttl": "1h"}}]},
             "system[0].cache_control"),
    Messages("fields of betas", {"context_management": {"edits": []}}, "context_management"),
]  # fmt: skip

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/apis.md"
HEAD = """\
# Which API can say what

A client speaks one API, whatever answers it. A request goes only where all of it can be said; a \
provider that cannot is skipped, and when no replica can come either the client gets a 400 that \
names the field shown here (as long as one may, the message of a 429 or 503 names it). Own \
engines get every request in OpenAI's form; whether a model follows an image or a schema is its \
own matter. What an engine cannot be told is refused at once, because \
every service has engines.

Each model at Replicate has inputs of its own, and drops what it does not know; so \
`models[].inputs` of the provider lists them. *Yes* is what every model takes that has a prompt \
and a limit (`max_tokens`); *with* names the input that a model must have as well. Replicate tells \
tokens, but not why an answer ended: one with as many tokens as were allowed ended by `length`.

Written by `make generate` from the table that the tests hold the translation against.
"""
TARGETS = (ProviderType.OPENAI, ProviderType.ANTHROPIC)
COLUMNS = (
    "| own engines | `openai`, `openai-compatible` | `anthropic` | `replicate` |\n"
    "|---|---|---|---|---|"
)
COUNT = """
`POST /v1/messages/count_tokens` is answered by an engine of the service, which alone knows how \
its model cuts text into tokens (llama.cpp does; the 404 of one that does not becomes a 501). It \
never spills, and nothing is estimated.
"""


def regenerate() -> dict[Path, str]:
    """Return the page with the matrix."""
    chats = [(case.feature, Request("/chat/completions", case.fields)) for case in CHATS]
    chats += [
        ("text completions", Request("/completions", {"prompt": "hi"})),
        ("embeddings", Request("/embeddings", {"input": "hi"})),
    ]
    lines = [HEAD, "## Clients of OpenAI", "", f"| what is asked {COLUMNS}"]
    lines += [_row(feature, request) for feature, request in chats]
    lines += ["", "## Clients of Anthropic", "", f"| what is asked {COLUMNS}"]
    lines += [_messages_row(case) for case in MESSAGES]
    return {PAGE: "\n".join([*lines, COUNT])}


def _messages_row(case: Messages) -> str:
    try:
        call = parse(call_of.MESSAGES, orjson.dumps(case.fields))
    except ApiError as error:
        return f"| {case.feature} | {' | '.join([f'no: `{error.param}`'] * 4)} |"
    return _row(case.feature, call.request)


def _row(feature: str, request: Request) -> str:
    missing = [unsupported(kind, request) for kind in TARGETS]
    cells = ["yes" if field is None else f"no: `{field.field}`" for field in missing]
    return f"| {feature} | yes | {' | '.join([*cells, _replicate_cell(request)])} |"


def _replicate_cell(request: Request) -> str:
    bare, every = frozenset({ModelInput.PROMPT, ModelInput.MAX_TOKENS}), frozenset(ModelInput)
    if unsupported(ProviderType.REPLICATE, request, bare) is None:
        return "yes"
    missing = unsupported(ProviderType.REPLICATE, request, every)
    if missing is not None:
        return f"no: `{missing.field}`"
    told = input_of(request.fields, every).keys() - bare
    return f"with {', '.join(f'`{name}`' for name in sorted(told))}"
