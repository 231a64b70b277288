"""Everything that parses what others send, each as a function of bytes that must not raise.

``make test`` runs them on some mutations of the seeds, ``make fuzz`` on very many.
"""

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from overspill.api import sse
from overspill.api.provider import ProviderType
from overspill.engine.llamacpp import LlamaCpp
from overspill.engine.load import gauge
from overspill.engine.options import Options
from overspill.engine.shape import UnknownShape
from overspill.engine.vllm import VLLM
from overspill.gateway import folder
from overspill.gateway.call import ENDPOINTS, engine_body, parse
from overspill.gateway.charge import limited, most
from overspill.gateway.errors import ApiError
from overspill.gateway.memory import weigh
from overspill.gateway.prefix import blocks_of
from overspill.gateway.reports import counts
from overspill.gateway.size import size_of
from overspill.gateway.wire import wire_of
from overspill.ledger.treasury import BadRecord, Treasury
from overspill.providers.base import AnswerBroken, Api
from overspill.providers.chat_as_messages import ChatAsMessages
from overspill.providers.client import unsupported
from overspill.providers.messages_as_chat import MessagesAsChat
from overspill.providers.translated import Translated, Translator

NOW = 1_790_000_000.0
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")


def requests(data: bytes) -> None:
    """A body of any endpoint: refused, or the same to every parser, and sayable or not."""
    for endpoint in ENDPOINTS.values():
        try:
            call = parse(endpoint, data)
            weigh(call.fields)
        except ApiError:
            continue
        sent = engine_body(call, "served")
        first_wins = json.loads(sent, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        assert first_wins == json.loads(sent)
        size_of(call), most(call), limited(call), blocks_of(call, "tenant")
        for kind in ProviderType if endpoint.spills else ():
            unsupported(kind, call.request)


def events(data: bytes) -> None:
    """A stream of events: the same however it is cut."""
    cut, rest = data[:1], data[1:]
    size = cut[0] % 16 + 1 if cut else 1
    whole, pieces = sse.EventSplitter(), sse.EventSplitter()
    found = whole.feed(rest)
    parts = [rest[i : i + size] for i in range(0, len(rest), size)]
    cut_up = [event for part in parts for event in pieces.feed(part)]
    assert [sse.data_of(e) for e in found] == [sse.data_of(e) for e in cut_up]
    for event in found:
        sse.name_of(event)
        sse.has_content(sse.parse(sse.data_of(event)))


class _Recorded:
    """An answer that is all there."""

    def __init__(self, body: bytes, streams: bool) -> None:
        self.body, self.streams = body, streams

    async def read(self, seconds: float) -> bytes:
        piece, self.body = self.body, b""
        return piece

    def close(self) -> None:
        """Nothing is open."""


async def _read(body: bytes, streams: bool, translator: Translator) -> None:
    answer = Translated(_Recorded(body, streams), translator)
    with contextlib.suppress(AnswerBroken):
        while await answer.read(1.0):
            pass


_runner = asyncio.Runner()


def answers(data: bytes) -> None:
    """What a provider answers: translated or broken; and what the gateway looks for in it."""
    for streams in (False, True):
        for translator in (MessagesAsChat(), ChatAsMessages()):
            _runner.run(_read(data, streams, translator))
    for api in Api:
        wire = wire_of(api, wants_usage=True)
        wire.usage_of(sse.parse(data))
        for number, event in enumerate(sse.EventSplitter().feed(data)):
            wire.see(event, first=number == 0)


def metrics(data: bytes) -> None:
    """An engine's page of metrics: two counts, or none."""
    with contextlib.suppress(ValueError):
        assert all(count >= 0 for count in counts(data, GAUGES))
    gauge(data.decode(errors="replace"), GAUGES[0])


def objects(data: bytes) -> None:
    """A file of objects."""
    with contextlib.suppress(folder.InvalidFile):
        for found in folder.parse(data):
            assert found["metadata"]["name"]


_folder = TemporaryDirectory()
_FILES = [
    Path(_folder.name, name)
    for name in ("model.gguf", "config.json", "model.safetensors.index.json")
]


def models(data: bytes) -> None:
    """A model's files: what it needs is a number of bytes, or unknown."""
    for file in _FILES:
        file.write_bytes(data)
    for engine, model in ((LlamaCpp(), _FILES[0]), (VLLM(), _FILES[0].parent)):
        options = Options(model, "chat")
        with contextlib.suppress(UnknownShape):
            assert engine.formula(options, model)(options).shown()["overhead"] > 0


def records(data: bytes) -> None:
    """The record of budgets: read and written it is the same, and no room is more than a limit."""
    try:
        treasury = Treasury.read(data.decode(errors="replace"))
    except BadRecord:
        return
    pots = list(treasury.current(NOW))
    assert list(Treasury.read(treasury.record(NOW)).current(NOW)) == pots
    assert all(0 <= pot.room <= pot.limit for _, _, pot in pots)


_TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_TEXT = {"type": "text", "text": "hi"}
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}


def _json(**fields: object) -> bytes:
    return orjson.dumps(fields)


def _events(*chunks: dict[str, object]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)


def _choice(**delta: object) -> dict[str, object]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _gguf(**numbers: int) -> bytes:
    """Return a header of GGUF, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    for key, number in numbers.items():
        pairs.append(text("llama." + key.replace("__", ".")) + struct.pack("<II", 4, number))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


_SPEC = {"model": {"uri": "oci://r/m"}, "spillover": {"providers": [{"name": "a", "model": "b"}]}}
_PROVIDER = {
    "type": "openai-compatible", "baseURL": "https://a.example/v1", "secretRef": {"name": "k"},
    "models": [{"name": "b", "price": {"inputPerMTok": "1", "outputPerMTok": "2"}}],
}  # fmt: skip
_SLICE = {"addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": []}

# target: what it is begun with
SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    requests: [
        _json(
            model="m", messages=[{"role": "user", "content": [_TEXT, _IMAGE]}], max_tokens=5,
            stream=True, stream_options={"include_usage": True}, response_format=_SCHEMA,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        ),
        _json(
            model="m", stop=["a"], temperature=1, n=2,
            messages=[
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ],
        ),
        _json(model="m", prompt=["a", "b"], best_of=2, logprobs=1),
        _json(model="m", input=[[1, 2], [3]], dimensions=4),
        _json(
            model="m", max_tokens=5, system=[_TEXT], tools=[_TOOL], tool_choice={"type": "auto"},
            messages=[{"role": "user", "content": [_TEXT]}], thinking={"type": "disabled"},
        ),
    ],
    events: [b"\x03data: a\n\n: c\r\n\r\ndata: b\rdata: c\r\revent: x\ndata:d\n\n"],
    answers: [
        _events(_choice(content="Hel"), _choice(tool_calls=[_CALL]), {"usage": _USAGE})
        + b"data: [DONE]\n\n",
        _json(choices=[{"message": {"content": "a", "tool_calls": [_CALL]}}], usage=_USAGE),
        _events(
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {"type": "content_block_delta", "index": 0, "delta": {"text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
            {"type": "message_stop"},
        ),
    ],
    metrics: [
        b"# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0"} 3.0 1700000000\nvllm:num_requests_waiting 0\n'
    ],
    objects: [
        orjson.dumps({"kind": kind, "metadata": {"name": "n", "labels": labels}, **content})
        for kind, labels, content in (
            ("InferenceService", {}, {"spec": _SPEC}),
            ("InferenceProvider", {}, {"spec": _PROVIDER}),
            ("EndpointSlice", {"kubernetes.io/service-name": "n"}, _SLICE),
            ("Secret", {"overspill.dev/key": "true"}, {"stringData": {"tenant": "t"}}),
        )
    ],
    models: [
        _gguf(
            block_count=2, context_length=512, embedding_length=64, feed_forward_length=128,
            attention__head_count=4, attention__head_count_kv=2, attention__sliding_window=16,
            attention__sliding_window_pattern=2, vocab_size=32,
        ),
        _json(
            num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=512, intermediate_size=128, vocab_size=32, sliding_window=16,
            layer_types=["sliding_attention", "full_attention"], weight_map={"a": "config.json"},
        ),
    ],
    records: [
        _json(
            revision=1,
            pots=[["provider/p/a", "day", 1_789_948_800, 9, 1, None, {"g": [3, 2, 1]}]],
        )
    ],
}  # fmt: skip
