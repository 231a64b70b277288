"""What reaches an upstream is an allow-list; every refusal names the field."""

import contextlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.gateway.call import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    MAX_TOKEN,
    Endpoint,
    engine_body,
    parse,
)
from overspill.gateway.errors import ApiError
from overspill.gateway.schemas import MAX_LEVELS, MAX_TEXT, MAX_VALUES

HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}


def chat(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": HI} | fields)


def prompt(*items: Any) -> bytes:
    return orjson.dumps({"model": "m", "prompt": items})


def nested(levels: int) -> dict[str, Any]:
    """A response format with a schema so that all of it has that many levels."""
    schema: Any = "x"
    for _ in range(levels - 3):
        schema = {"items": schema}
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


BAD = [
    ("model", CHAT, chat(model=1)),
    ("model", CHAT, chat(model="")),
    ("model", CHAT, chat(model="x" * 300)),
    ("model", CHAT, chat(model=None)),
    ("chat_template", CHAT, chat(chat_template="{{ x }}")),
    ("chat_template_kwargs", CHAT, chat(chat_template_kwargs={})),
    ("mm_processor_kwargs", CHAT, chat(mm_processor_kwargs={})),
    ("kv_transfer_params", CHAT, chat(kv_transfer_params={})),
    ("cache_prompt", CHAT, chat(cache_prompt=False)),
    ("id_slot", CHAT, chat(id_slot=0)),
    ("api_base", CHAT, chat(api_base="http://evil")),
    ("n", CHAT, chat(n=9)),
    ("n", CHAT, chat(n=1.0)),
    ("n", CHAT, chat(n=True)),
    ("max_tokens", CHAT, chat(max_tokens=0)),
    ("max_tokens", CHAT, chat(max_tokens=10**12)),
    ("max_completion_tokens", CHAT, chat(max_completion_tokens=-1)),
    ("temperature", CHAT, chat(temperature="hot")),
    ("temperature", CHAT, chat(temperature=3)),
    ("top_p", CHAT, chat(top_p=1.1)),
    ("top_logprobs", CHAT, chat(top_logprobs=1000)),
    ("logprobs", CHAT, chat(logprobs=100)),
    ("seed", CHAT, b'{"model":"m","messages":[{"role":"user"}],"seed":1e400}'),
    ("stop", CHAT, chat(stop=["x"] * 17)),
    ("stop", CHAT, chat(stop=5)),
    ("stream", CHAT, chat(stream=1)),
    ("stream_options", CHAT, chat(stream_options={"include_usage": True})),
    ("stream_options", CHAT, chat(stream=True, stream_options={"x": True})),
    ("stream_options", CHAT, chat(stream=True, stream_options={"include_usage": 1})),
    ("messages", CHAT, chat(messages=None)),
    ("messages", CHAT, chat(messages="hi")),
    ("messages", CHAT, chat(messages=[])),
    ("messages[1]", CHAT, chat(messages=[*HI, "x"])),
    ("messages[0]", CHAT, chat(messages=[{"content": "x"}])),
    ("messages[0]", CHAT, chat(messages=[{"role": "user", "content": 5}])),
    ("messages[0]", CHAT, chat(messages=[{"role": "user", "content": [IMAGE]}])),
    ("messages[0]", CHAT, chat(messages=[{"role": "user", "content": [{"type": "video_url"}]}])),
    ("messages[0]", CHAT, chat(messages=[{"role": "user", "content": ["x"]}])),
    ("logit_bias", CHAT, chat(logit_bias=[1])),
    ("logit_bias", CHAT, chat(logit_bias={"1": 101})),
    ("logit_bias", CHAT, chat(logit_bias={"1": "100"})),
    ("logit_bias", CHAT, chat(logit_bias={str(n): 1 for n in range(1025)})),
    ("metadata", CHAT, chat(metadata={"a": 1})),
    ("user", CHAT, chat(user=1)),
    ("response_format", CHAT, chat(response_format="json")),
    ("response_format", CHAT, chat(response_format={"type": "structural_tag"})),
    ("response_format", CHAT, chat(response_format={"type": "json_object", "regex": "(a+)+"})),
    ("response_format", CHAT, chat(response_format=nested(MAX_LEVELS + 1))),
    ("tools", CHAT, chat(tools=[{"enum": [0] * MAX_VALUES}])),
    ("tools", CHAT, chat(tools=[{"description": "x" * (MAX_TEXT + 1)}])),
    ("functions", CHAT, chat(functions=[{"x" * (MAX_TEXT + 1): 1}])),
    ("prompt", COMPLETIONS, prompt(-1)),
    ("prompt", COMPLETIONS, prompt("a", MAX_TOKEN + 1)),
    ("prompt", COMPLETIONS, prompt([1, 2.0])),
    ("prompt", COMPLETIONS, prompt([1, MAX_TOKEN + 1])),
    ("prompt", COMPLETIONS, prompt([])),
    ("prompt", COMPLETIONS, prompt({"text": "x"})),
    ("prompt", COMPLETIONS, orjson.dumps({"model": "m"})),
    ("prompt", COMPLETIONS, orjson.dumps({"model": "m", "prompt": 5})),
    ("input", EMBEDDINGS, orjson.dumps({"model": "m", "input": []})),
    ("messages", EMBEDDINGS, orjson.dumps({"model": "m", "input": "x", "messages": HI})),
]


@pytest.mark.parametrize(("field", "endpoint", "body"), BAD)
def test_a_bad_field_is_named(field: str, endpoint: Endpoint, body: bytes) -> None:
    with pytest.raises(ApiError) as info:
        parse(endpoint, body)
    assert info.value.status == 400
    if field == "seed":
        assert info.value.code in ("invalid_json", "invalid_value")
    else:
        assert info.value.param == field
        assert field.split("[")[0] in info.value.message


def test_data_urls_and_nulls_are_fine() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "what"}, image]
    parse(CHAT, chat(messages=[{"role": "user", "content": parts}], max_tokens=None, stop=None))


def test_what_is_within_the_bounds_is_fine() -> None:
    biased = {str(n): -100 for n in range(1024)}
    parse(CHAT, chat(response_format=nested(MAX_LEVELS), logit_bias=biased, metadata={"a": "b"}))
    parse(COMPLETIONS, prompt("a", 0, MAX_TOKEN, [0, MAX_TOKEN]))


# What engines know beside the API: https://docs.vllm.ai, llama.cpp's server, SGLang's.
KNOBS = Path(__file__).with_name("knobs.txt").read_text().split()


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda e: e.path.decode())
def test_an_engines_knobs_stop_at_every_endpoint_alike(endpoint: Endpoint) -> None:
    sound = {"model": "m", endpoint.prompt: HI if endpoint.prompt == "messages" else "x"}
    for knob in KNOBS:
        with pytest.raises(ApiError) as info:
            parse(endpoint, orjson.dumps(sound | {knob: {"x": 1}}))
        assert (info.value.status, info.value.code) == (400, "unknown_parameter"), knob
        assert info.value.param == knob


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda e: e.path.decode())
def test_no_field_passes_any_number_on(endpoint: Endpoint) -> None:
    """Fields of schemas, and of choice among tools, hold objects; their numbers are a schema's."""
    sound = {"model": "m", "max_tokens": 1} if "max_tokens" in endpoint.fields else {"model": "m"}
    sound[endpoint.prompt] = HI if endpoint.prompt == "messages" else "x"
    objects = {"tools", "functions", "tool_choice", "function_call"}
    for name in endpoint.fields - objects:
        for number in (1e30, -(2**63), 2**63):
            sent = b""
            with contextlib.suppress(ApiError):
                sent = parse(endpoint, orjson.dumps(sound | {name: number})).body
            assert orjson.dumps(number) not in sent, name


@pytest.mark.parametrize("served", ["m", "served", 'n/\u00e9"'])
def test_an_engine_gets_what_the_client_asked_and_no_more(served: str) -> None:
    body = b'{ "messages" : [{"role":"user","content":"\\u00e9"}], "model":"m", "n": 1 }\n'
    call = parse(CHAT, body)
    assert orjson.loads(engine_body(call, served)) == call.fields | {"model": served}


def test_a_stream_asks_for_usage() -> None:
    body = b'{"model":"m", "messages":[{"role":"user"}],"stream":true} \n'
    call = parse(CHAT, body)
    usage = {"stream_options": {"include_usage": True}}
    assert orjson.loads(engine_body(call, "m")) == call.fields | usage


def first_wins(text: bytes) -> Any:
    """Read JSON as a parser that keeps the first of equal keys."""
    return json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


PART = b'{"type":"image_url","image_url":{"url":"http://169.254.169.254/","url":"data:,"}}'
TWICE = [
    b'"max_tokens":1000000000,"max_tokens":5',
    b'"stream":true,"stream":false',
    b'"model":"other"',
    b'"n":1000,"n":1',
    b'"stop":"' + b"x" * 2000 + b'","stop":"x"',
    b'"messages":[{"role":"user","content":[' + PART + b"]}]",
    b'"\\u006e":900,"n":1',
    b'"tools":[{"type":"function","function":{"name":"a","name":"b"}}]',
]


@pytest.mark.parametrize("twice", TWICE)
@pytest.mark.parametrize("served", ["m", "served"])
def test_every_parser_reads_what_was_checked(twice: bytes, served: str) -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}],"model":"m",' + twice + b"}"
    call = parse(CHAT, body)
    assert first_wins(body) != json.loads(body)
    sent = engine_body(call, served)
    assert first_wins(sent) == json.loads(sent) == call.fields | {"model": served}


def test_a_body_that_nests_too_deep_is_refused() -> None:
    deep = b"[" * 300 + b"]" * 300
    body = b'{"model":"m","messages":[{"role":"user","content":"x","x":' + deep + b"}]}"
    with pytest.raises(ApiError, match="nests too deep") as info:
        parse(CHAT, body)
    assert info.value.status == 400


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_stream_options_that_do_not_ask_are_replaced(options: Any) -> None:
    call = parse(CHAT, chat(stream=True, stream_options=options))
    assert not call.wants_usage
    assert orjson.loads(engine_body(call, "m"))["stream_options"] == {"include_usage": True}


def test_the_engine_is_asked_for_the_name_it_serves() -> None:
    assert orjson.loads(engine_body(parse(CHAT, chat(model="ns/m")), "m"))["model"] == "m"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CHAT.fields)) | st.text(), json_values, max_size=6))
def test_any_json_is_either_a_call_or_a_400(fields: dict[str, Any]) -> None:
    call, status = None, 200
    try:
        call = parse(CHAT, orjson.dumps(fields | {"model": "m", "messages": HI}))
    except ApiError as error:
        status = error.status
    assert status in (200, 400)
    assert call is None or set(orjson.loads(engine_body(call, "m"))) <= CHAT.fields
