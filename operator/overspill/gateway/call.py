"""What a client asked: a body, parsed once, held against an allow-list of fields and bounds.

What is sent on is written anew from what was checked, never the client's own bytes: of two equal
keys, or of a number that is too large, parsers read different things (docs/adr/0010).

What is not listed here reaches no engine and no provider: templates, fetchers and transfer
knobs of engines (``chat_template``, ``mm_processor_kwargs``, ``kv_transfer_params``, …) stop
with a 400 that names them. Numbers are bounded, media come inside the body or not at all.

https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from overspill.api.bodies import json_body
from overspill.gateway.errors import ApiError, bad_request
from overspill.gateway.memory import look_at
from overspill.gateway.schemas import check_schemas
from overspill.providers import messages_to_chat
from overspill.providers.base import Api, Request, Unsupported

Fields = dict[str, Any]

MAX_LIST = 16_384  # messages, prompts or inputs in one request
MAX_MODEL_NAME = 256
MAX_TOKEN = 2**31 - 1  # its number in a vocabulary
MAX_BIAS, MAX_BIASED = 100, 1024  # of a token's logit; tokens that have one
_BIG = 1_000_000  # tokens; more than any context
_INT64 = 2**63 - 1

# Fields that engines and the OpenAI API share.
_SHARED = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "stop"}
    | {"n", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "user"}
)
_CHAT = frozenset(
    {"messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls"}
    | {"response_format", "top_logprobs", "reasoning_effort", "verbosity", "metadata", "store"}
    | {"service_tier", "safety_identifier", "prompt_cache_key", "functions", "function_call"}
)
# Sampling that engines know. A provider whose API does not is skipped.
ENGINE_ONLY = frozenset(
    {"top_k", "min_p", "typical_p", "repeat_penalty", "repetition_penalty", "ignore_eos"}
    | {"min_tokens"}
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of an API: which field holds the prompt, and which fields it takes.

    :param engine_path: where an engine is asked, if elsewhere.
    :param spills: a provider may answer.
    """

    path: bytes
    prompt: str
    fields: frozenset[str]
    streams: bool = True
    api: Api = Api.OPENAI
    engine_path: bytes = b""
    spills: bool = True


CHAT = Endpoint(b"/v1/chat/completions", "messages", _SHARED | _CHAT | ENGINE_ONLY)
COMPLETIONS = Endpoint(
    b"/v1/completions",
    "prompt",
    _SHARED | ENGINE_ONLY | {"prompt", "suffix", "echo", "best_of"},
)
EMBEDDINGS = Endpoint(
    b"/v1/embeddings",
    "input",
    frozenset({"model", "input", "encoding_format", "dimensions", "user"}),
    streams=False,
)
MESSAGES = Endpoint(
    b"/v1/messages",
    "messages",
    messages_to_chat.FIELDS,
    api=Api.ANTHROPIC,
    engine_path=CHAT.path,
)
# Only the engine knows how its model cuts text into tokens: it gets the body as it came.
COUNT_TOKENS = Endpoint(
    b"/v1/messages/count_tokens",
    "messages",
    messages_to_chat.COUNTED,
    streams=False,
    api=Api.ANTHROPIC,
    spills=False,
)
ENDPOINTS = {e.path: e for e in (CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, COUNT_TOKENS)}

# Parts of a message. ``cache_control`` changes no answer, and clients of many models write it.
_PARTS = {
    kind: frozenset({"type", kind, "cache_control"})
    for kind in ("text", "refusal", "input_audio", "image_url")
}
_TOOLS = ("tools", "functions")  # templates put them before the messages

# field: (lowest, highest, whole numbers only)
BOUNDS: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "n": (1, 8, True),
    "best_of": (1, 8, True),
    "max_tokens": (1, _BIG, True),
    "max_completion_tokens": (1, _BIG, True),
    "min_tokens": (0, _BIG, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
    "top_logprobs": (0, 20, True),
    "seed": (-_INT64, _INT64, True),
    "top_k": (-1, 10_000, True),
    "min_p": (0, 1, False),
    "typical_p": (0, 1, False),
    "repeat_penalty": (0, 10, False),
    "repetition_penalty": (0, 10, False),
    "dimensions": (1, 65_536, True),
}
BOOLEANS = frozenset({"stream", "echo", "store", "parallel_tool_calls", "ignore_eos"})
TEXTS = frozenset(
    {"user", "safety_identifier", "prompt_cache_key", "reasoning_effort", "verbosity"}
    | {"service_tier", "suffix", "encoding_format"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that passed the checks.

    :param body: for an engine: the model, then what becomes its prompt, then the rest.
    :param fields: what the client asked, in OpenAI's form.
    :param wants_usage: the client asked for the usage chunk of a stream.
    :param messages: what a client of Anthropic's API sent.
    """

    endpoint: Endpoint
    model: str
    body: bytes
    fields: Fields
    stream: bool
    wants_usage: bool
    messages: Fields | None = None

    @property
    def engine_path(self) -> bytes:
        """Where an engine is asked."""
        return self.endpoint.engine_path or self.endpoint.path

    @property
    def token_limit(self) -> int | None:
        """The most tokens of one answer, where the client says so."""
        return self.fields.get("max_completion_tokens") or self.fields.get("max_tokens")

    @property
    def choices(self) -> int:
        """How many answers the client gets."""
        return self.fields.get("n") or 1

    @property
    def request(self) -> Request:
        """The request as a provider gets it."""
        path = self.engine_path.decode().removeprefix("/v1")
        return Request(path, self.fields, self.messages)


def parse(endpoint: Endpoint, body: bytes) -> Call:
    """Check a body.

    :raises ApiError: 400 that names the field and what it may be.
    """
    fields = _object(body)
    unknown = fields.keys() - endpoint.fields
    if unknown:
        name = min(unknown)
        raise bad_request(
            f"Unrecognized request argument supplied: {name[:64]}", name[:64], "unknown_parameter"
        )
    messages = fields if endpoint.api is Api.ANTHROPIC else None
    if messages is not None:
        fields = _chat_of(endpoint, messages)
    model = fields.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_NAME:
        raise bad_request("model must be the name of a model", "model")
    for name, value in fields.items():
        if value is not None:
            _check(name, value)
    check_schemas(fields)
    _check_prompt(endpoint, fields)
    stream = fields.get("stream") is True
    options = fields.get("stream_options")
    if options and not stream:
        raise bad_request("stream_options needs stream: true", "stream_options")
    wants_usage = bool(options and options.get("include_usage"))
    written = _written(
        endpoint,
        messages if messages and endpoint is COUNT_TOKENS else fields,
        ask_usage=stream and not wants_usage,
    )
    return Call(endpoint, model, written, fields, stream, wants_usage, messages)


def _chat_of(endpoint: Endpoint, messages: Fields) -> Fields:
    """Return a Messages request in OpenAI's form."""
    try:
        fields = messages_to_chat.chat_of(messages)
    except Unsupported as error:
        raise bad_request(str(error), error.field, "unsupported_parameter") from None
    if endpoint is MESSAGES and "max_tokens" not in fields:
        raise bad_request("max_tokens is required: the longest answer, in tokens", "max_tokens")
    return fields


def _written(endpoint: Endpoint, fields: Fields, *, ask_usage: bool) -> bytes:
    """Write a body for an engine: the model, then all that becomes its prompt, then the rest.

    Streams always ask for usage, so that tokens are counted; the extra chunk is taken out again.
    """
    first = {name: fields[name] for name in ("model", *_TOOLS, endpoint.prompt) if name in fields}
    changed = first | fields
    if ask_usage:
        changed["stream_options"] = {"include_usage": True}
    try:
        return json_body(changed)
    except orjson.JSONEncodeError:
        raise bad_request("the body nests too deep", code="invalid_json") from None


def engine_body(call: Call, served_name: str, more: bytes = b"") -> bytes:
    """Return the body for an engine; the model is named as the engine serves it.

    :param more: members of our own, each with a comma before it.
    """
    body = call.body
    if call.model != served_name:
        body = _start(served_name) + body[len(_start(call.model)) :]
    return body[:-1] + more + b"}" if more else body


def prompt_start(call: Call) -> int:
    """Return where in the body all that becomes the prompt begins; nothing else comes before."""
    return len(_start(call.model))


def _start(model: str) -> bytes:
    """Return how a body begins."""
    return b'{"model":' + orjson.dumps(model)


def _object(body: bytes) -> Fields:
    look_at(body)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not valid JSON: {error.msg}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    return fields


def _check(name: str, value: Any) -> None:
    """Hold one field against its type and bounds."""
    if name in BOUNDS:
        low, high, whole = BOUNDS[name]
        number = type(value) is int or (not whole and type(value) is float)
        if not number or not low <= value <= high:
            kind = "an integer" if whole else "a number"
            raise bad_request(f"{name} must be {kind} from {low:g} to {high:g}", name)
    elif name in BOOLEANS:
        if type(value) is not bool:
            raise bad_request(f"{name} must be true or false", name)
    elif name in TEXTS:
        if not isinstance(value, str):
            raise bad_request(f"{name} must be a string", name)
    elif name == "stop":
        _check_stop(value)
    elif name == "logit_bias":
        _check_bias(value)
    elif name == "metadata":
        _check_metadata(value)
    elif name == "stream_options":
        _check_stream_options(value)
    elif (
        name == "logprobs"
        and type(value) is not bool
        and not (type(value) is int and 0 <= value <= 20)
    ):
        raise bad_request("logprobs must be true, false or an integer from 0 to 20", name)


def _check_stop(value: Any) -> None:
    texts = value if isinstance(value, list) else [value]
    if len(texts) > 16 or not all(isinstance(t, str) and len(t) <= 1024 for t in texts):
        raise bad_request("stop must be a string, or at most 16 of them", "stop")


def _check_bias(value: Any) -> None:
    """https://platform.openai.com/docs/api-reference/chat/create#chat-create-logit_bias"""
    numbers: list[Any] = list(value.values()) if isinstance(value, dict) else [None]
    fine = all(type(n) in (int, float) and abs(n) <= MAX_BIAS for n in numbers)
    if not fine or len(value) > MAX_BIASED:
        raise bad_request(
            f"logit_bias must give at most {MAX_BIASED} tokens a number from -{MAX_BIAS} to "
            f"{MAX_BIAS} each",
            "logit_bias",
        )


def _check_metadata(value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise bad_request("metadata must be an object whose values are strings", "metadata")


def _check_stream_options(value: Any) -> None:
    known = {"include_usage", "include_obfuscation"}
    if not isinstance(value, dict) or value.keys() - known:
        raise bad_request("stream_options may hold include_usage only", "stream_options")
    if not all(type(v) is bool for v in value.values()):
        raise bad_request("stream_options.include_usage must be true or false", "stream_options")


def _check_prompt(endpoint: Endpoint, fields: Fields) -> None:
    name = endpoint.prompt
    prompt = fields.get(name)
    if isinstance(prompt, list):
        if not 0 < len(prompt) <= MAX_LIST:
            raise bad_request(f"{name} must have 1 to {MAX_LIST} items", name)
        if name == CHAT.prompt:
            for index, message in enumerate(prompt):
                _check_message(index, message)
        elif not all(map(_is_input, prompt)):
            raise bad_request(
                f"{name} may hold strings, tokens from 0 to {MAX_TOKEN}, and lists of tokens", name
            )
    elif name == CHAT.prompt or not isinstance(prompt, str):
        kind = "a list of messages" if name == CHAT.prompt else "a string or a list"
        raise bad_request(f"{name} is required: {kind}", name)


def _is_input(item: Any) -> bool:
    """Whether an item of a prompt is a text, a token, or a list of tokens."""
    if type(item) is int:
        return 0 <= item <= MAX_TOKEN
    if not isinstance(item, list):
        return isinstance(item, str)
    numbers: list[int] = item
    return set(map(type, numbers)) == {int} and 0 <= min(numbers) <= max(numbers) <= MAX_TOKEN


def _check_message(index: int, message: Any) -> None:
    where = f"messages[{index}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise bad_request(f"{where} must be an object with a role", where)
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise bad_request(f"{where}.content must be a string or a list of parts", where)
    for part in content:
        _check_part(where, part)


def _check_part(where: str, part: Any) -> None:
    """Text, or media inside the body: nobody fetches an address for a client.

    Of anything else in a part an engine may make a key of a cache that all tenants share, as vLLM
    does of ``uuid``.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    known = _PARTS.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise bad_request(f"{where}.content has a part of an unknown type", where)
    if unknown := part.keys() - known:
        raise bad_request(f"{where}.content has a part with {min(unknown)[:64]}", where)
    if kind == "image_url" and not _is_inside(part.get(kind)):
        raise bad_request(f"{where}: an image must be sent as a data: URL", where)
    if kind == "input_audio" and not _is_sound(part.get(kind)):
        raise bad_request(f"{where}: a sound must be sent in base64", where)


def _is_inside(image: Any) -> bool:
    """Whether an image is all there."""
    url = image.get("url") if isinstance(image, dict) else None
    return isinstance(url, str) and url.startswith("data:")


def _is_sound(sound: Any) -> bool:
    """Whether it is no address, which has one of two signs that are not in base64."""
    data = sound.get("data") if isinstance(sound, dict) else None
    return isinstance(data, str) and ":" not in data and "." not in data


def media(fields: Fields) -> Iterator[str]:
    """Yield the images and sounds of a chat, each as the text that it is inside the body."""
    for message in fields.get(CHAT.prompt) or ():
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] == "image_url":
                yield part["image_url"]["url"]
            elif part["type"] == "input_audio":
                yield part["input_audio"]["data"]


def too_large(limit: int) -> ApiError:
    """Return the 413 for a body above the limit in bytes."""
    return ApiError(
        413,
        "request_too_large",
        f"the body is larger than {limit} bytes",
        headers=((b"connection", b"close"),),
    )
