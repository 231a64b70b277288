"""What a model at Replicate is told, and the way there and back through a real gateway.

The stand-in is held against Replicate's official SDK first.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest
import replicate
from features import CHATS, DATA_URL, HI, Chat
from gateway_world import Upstream, World, service, until, world
from hypothesis import given, settings
from hypothesis import strategies as st
from replicate_cloud import METRICS, WORDS, ReplicateCloud

from overspill.api.provider import InferenceProvider, ModelInput, ProviderType
from overspill.gateway import funds
from overspill.gateway.secret import read_secret
from overspill.gateway.standalone import keeping
from overspill.providers.base import Fields, Request, Unsupported
from overspill.providers.chat_to_prediction import input_of
from overspill.providers.client import unsupported

ALL = frozenset(ModelInput)
SAID = "".join(WORDS)
MODEL = "acme/big-1"
PRICE = {"inputPerMTok": "5", "outputPerMTok": "25"}
COST = "0.00023"  # 11 at $5 and 7 at $25 per million
ASKED: dict[str, Any] = {"model": "chat", "messages": [HI], "max_tokens": 50}
CHAT = "/v1/chat/completions"
YES: Fields = {"role": "assistant", "content": "yes?"}

# feature: what is in the input beside the prompt and the limit, or the field that is named
TOLD: dict[str, Fields | str] = {
    "text": {},
    "streams": {},
    "conversations": {"messages": [HI, YES, HI, HI]},
    "system prompt": {"system_prompt": "be kind"},
    "developer prompt": {"system_prompt": "a"},
    "system prompt later on": {"messages": [HI, {"role": "system", "content": "now in French"}]},
    "images, as data: URLs": {"prompt": "what?", "image": DATA_URL},
    "images, detail high": "messages[0].content[1]",
    "images, detail low": "messages[0].content[1]",
    "audio": "messages[0].content[0]",
    "names of speakers": "messages[0].name",
    "tool calls whose arguments are no JSON": "messages[1].tool_calls",
    "tool calls with numbers beyond 64 bits": "messages[1].tool_calls",
    "reasoning of earlier turns (not sent: its maker signs it)": {"messages": [HI, YES, HI]},
    "functions, before there were tools": "functions",
    "JSON by a schema": "response_format",
    "JSON of any kind": "response_format",
    "response_format text": {},
    "stop sequence": {"stop_sequences": "END"},
    "stop sequences": "stop",
    "stop sequences of white space": "stop",
    "max_tokens (8,192 at Anthropic, 4,096 at Replicate if not given)": {"max_tokens": 5},
    "max_completion_tokens": {"max_tokens": 6},
    "temperature up to 1, top_p": {"temperature": 0, "top_p": 0.5},
    "temperature above 1": {"temperature": 1.5},
    "top_k": {"top_k": 20},
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "sampling at its defaults": {"frequency_penalty": 0},
    "seed": {"seed": 7},
    "several answers (n)": "n",
    "log probabilities": "logprobs",
    "logit_bias": "logit_bias",
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "reasoning_effort": {"reasoning_effort": "high"},
    "reasoning_effort none": {"reasoning_effort": "none"},
    "reasoning_effort and JSON by a schema": "response_format",
    "verbosity": {"verbosity": "low"},
    "user (not sent to Replicate: it changes no answer)": {},
    "metadata, store, service_tier, prompt_cache_key (not sent: they change no answer)": {},
}


@pytest.mark.parametrize("case", CHATS, ids=[case.feature for case in CHATS])
def test_a_chat_as_the_input_of_a_model(case: Chat) -> None:
    expected = TOLD.get(case.feature, "tools")
    found = unsupported(ProviderType.REPLICATE, Request("/chat/completions", case.fields), ALL)
    if isinstance(expected, str):
        assert found is not None
        assert found.field == expected
        return
    assert found is None
    base = {"max_tokens": 4096} | ({} if "messages" in expected else {"prompt": "hi"})
    assert input_of(case.fields, ALL) == base | expected


@settings(max_examples=50)
@given(st.sampled_from(CHATS), st.frozensets(st.sampled_from(ModelInput)))
def test_a_model_is_told_what_it_takes_or_the_request_is_refused(
    case: Chat, inputs: frozenset[ModelInput]
) -> None:
    told: Fields = {}
    with suppress(Unsupported):
        told = input_of(case.fields, inputs)
    if not told:
        return
    assert inputs.issuperset(told)
    limits = [value for name, value in told.items() if name.startswith("max_")]
    assert limits == [case.asked.get("max_tokens") or case.asked.get("max_completion_tokens", 4096)]
    asked = case.asked.keys() & {"temperature", "top_p", "seed", "presence_penalty", "verbosity"}
    assert all(told[name] == case.asked[name] for name in asked)


LACKS: list[tuple[set[str], Fields, str]] = [
    # inputs, what is asked, the field that is named
    (set(), {}, "max_tokens"),
    ({"prompt"}, {}, "max_tokens"),
    ({"max_tokens"}, {}, "messages[0]"),
    ({"prompt", "max_tokens"}, {"messages": [HI, YES, HI]}, "messages[1]"),
    ({"prompt", "max_tokens"}, {"messages": [YES]}, "messages[0]"),
    ({"prompt", "max_tokens"}, {"messages": [{"role": "system", "content": "a"}]}, "messages"),
    ({"prompt", "max_tokens"}, {"messages": [{"role": "system", "content": "a"}, HI]},
     "messages[0]"),
    ({"prompt", "max_tokens"}, {"temperature": 0.5}, "temperature"),
    ({"prompt", "max_tokens"}, {"stop": "END"}, "stop"),
    ({"prompt", "max_tokens", "stop_sequences"}, {"stop": "a,b"}, "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "asked", "field"), LACKS)
def test_what_a_model_does_not_take_is_named(inputs: set[str], asked: Fields, field: str) -> None:
    request = Request("/chat/completions", {"model": "m", "messages": [HI]} | asked)
    taken = frozenset(map(ModelInput, inputs))
    found = unsupported(ProviderType.REPLICATE, request, taken)
    assert found is not None
    assert found.field == field


@pytest.fixture
async def cloud() -> AsyncIterator[ReplicateCloud]:
    async with ReplicateCloud().serving() as serving:
        yield serving


async def test_the_stand_in_is_what_replicates_own_sdk_expects(cloud: ReplicateCloud) -> None:
    client = replicate.Client(api_token="cloud-secret", base_url=cloud.root)
    asked: Any = {"model": "acme/big-1", "input": {"prompt": "hi", "odd": 1}}
    whole = await client.models.predictions.async_create(**asked, wait=5)
    assert (whole.status, whole.input) == ("succeeded", {"prompt": "hi"})
    assert ("".join(whole.output), whole.metrics) == (SAID, METRICS)
    events = [event async for event in await client.async_stream("acme/big-1", {"prompt": "hi"})]
    assert "".join(map(str, events)) == SAID
    assert [event.event.value for event in events] == ["output"] * len(WORDS) + ["done"]
    cloud.gate.clear()
    running = await client.models.predictions.async_create(**asked)
    await running.async_reload()
    assert running.status == "starting"
    await running.async_cancel()
    assert running.status == "canceled"
    cloud.status = 422
    with pytest.raises(replicate.exceptions.ReplicateError, match="prompt is required"):
        await client.models.predictions.async_create(model="acme/big-1", input={})


def spill_to(w: World, cloud: ReplicateCloud, budget: Any = None, **more: Any) -> None:
    """Let every request of the service go to the model; it has no replica."""
    spillover = {"providers": [{"name": "far", "model": MODEL}], "budget": budget}
    w.state.put_service(service(spillover=spillover, **more))
    model = {"name": MODEL, "price": PRICE, "inputs": sorted(cloud.takes)}
    w.provider(cloud, "far", type="replicate", models=[model])  # type: ignore[arg-type]


@pytest.fixture
async def gateway(cloud: ReplicateCloud) -> AsyncIterator[World]:
    async with world(hold=0.2) as w:
        spill_to(w, cloud)
        yield w


async def streamed(w: World, **more: Any) -> tuple[str, Any]:
    """Return the text of a stream of OpenAI's client, and its last chunk."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = [c async for c in await w.sdk().chat.completions.create(**ASKED | options | more)]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    return text, chunks


async def test_openais_client(gateway: World, cloud: ReplicateCloud) -> None:
    raw = await gateway.sdk().chat.completions.with_raw_response.create(**ASKED)
    whole = raw.parse()
    assert whole.choices[0].message.content == SAID
    assert (whole.choices[0].finish_reason, whole.usage.total_tokens) == ("stop", 18)
    assert raw.headers["x-overspill-destination"] == "team-a/far"
    assert raw.headers["x-overspill-cost-usd"] == COST
    text, chunks = await streamed(gateway, max_tokens=7)
    assert text == SAID
    assert chunks[-2].choices[0].finish_reason == "length"  # as many tokens as were allowed
    assert chunks[-1].usage.completion_tokens == 7
    assert cloud.inputs == [{"prompt": "hi", "max_tokens": n} for n in (50, 7)]
    made = "POST /v1/models/acme/big-1/predictions"
    id_ = list(cloud.predictions)[1]
    follow = [f"GET /v1/files/{id_}", f"GET /v1/predictions/{id_}"]
    assert cloud.paths == [made, made, *follow]
    assert not cloud.cancelled.is_set()
    assert cloud.headers[0]["Prefer"] == "wait=5"
    assert cloud.headers[0]["Cancel-After"] == "30s"  # 20 for the first byte, 0.2 for each token
    assert all(gateway.key not in str(headers) for headers in cloud.headers)


async def test_anthropics_client(gateway: World, cloud: ReplicateCloud) -> None:
    async with anthropic.AsyncAnthropic(api_key=gateway.key, base_url=gateway.url) as sdk:
        asked: dict[str, Any] = ASKED | {"system": "be kind"}
        whole = await sdk.messages.create(**asked)
        async with sdk.messages.stream(**asked) as stream:
            last = await stream.get_final_message()
    for answer in (whole, last):
        assert answer.content[0].text == SAID  # type: ignore[union-attr]
        assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 7)
        assert answer.usage.input_tokens == 11
    told = {"prompt": "hi", "system_prompt": "be kind", "max_tokens": 50}
    assert cloud.inputs == [told, told]


async def test_a_request_that_the_model_cannot_be_told_is_refused_by_name(
    gateway: World, cloud: ReplicateCloud
) -> None:
    broken = {"conditions": [{"type": "ModelReady", "status": "False", "reason": "NotFound"}]}
    spill_to(gateway, cloud, status=broken)
    with pytest.raises(openai.BadRequestError) as info:
        await gateway.sdk().chat.completions.create(**ASKED, top_p=0.5)
    assert info.value.param == "top_p"
    assert cloud.paths == []


@pytest.mark.parametrize("url", ["", "http://evil.example/v1/files/1", "{other}/v1/files/1", "x"])
async def test_events_are_taken_from_listed_hosts_only(
    gateway: World, cloud: ReplicateCloud, url: str
) -> None:
    """Without them the prediction itself is looked at until it has ended."""
    async with Upstream().serving() as other:
        cloud.stream_url = url.format(other=f"http://{other.address[0]}:{other.address[1]}")
        cloud.shown = 2
        cloud.gate.clear()
        asked = asyncio.create_task(streamed(gateway))
        await until(lambda: len(cloud.paths) > 2)
        cloud.gate.set()
        text, chunks = await asked
    assert text == SAID
    assert chunks[-1].usage.prompt_tokens == 11
    assert [c.choices[0].delta.content for c in chunks[:2]] == ["Once upon a time\n", "the end."]
    assert other.paths == []


async def test_a_stream_of_events_that_ends_early_is_finished_by_looks(
    gateway: World, cloud: ReplicateCloud
) -> None:
    cloud.cut_after, cloud.lost_looks = 1, 2
    text, chunks = await streamed(gateway)
    assert text == SAID
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_a_long_answer_is_waited_for(gateway: World, cloud: ReplicateCloud) -> None:
    cloud.gate.clear()
    cloud.longest_wait = 0.0
    asked = asyncio.create_task(gateway.post(CHAT, ASKED))
    await until(lambda: any(path.startswith("GET") for path in cloud.paths))
    cloud.gate.set()
    status, _, body = await asked
    assert status == 200
    assert orjson.loads(body)["choices"][0]["message"]["content"] == SAID


FAULTS: list[tuple[Fields, int, str]] = [
    # of the stand-in, the status of the answer, words of it
    ({"status": 422}, 400, "prompt is required"),
    ({"status": 429}, 503, "status 429"),
    ({"status": 302}, 503, "status 302"),
    ({"status": 402}, 503, "status 402"),
    ({"ends": "failed"}, 503, "could not finish"),
    ({"ends": "aborted"}, 503, "could not finish"),
    ({"lost_looks": 3, "cut_after": 0}, 503, "lost"),
    ({"error_after": 0}, 503, "could not finish"),
    ({"words": [5]}, 503, "none of this provider's API"),
    ({"junk": [1]}, 503, "no prediction"),
    ({"junk": {"id": "../models", "status": "starting"}}, 503, "no prediction"),
    ({"junk": {"id": "a", "status": None}}, 503, "no prediction"),
]


@pytest.mark.parametrize(("fault", "status", "words"), FAULTS)
async def test_what_fails_is_told_and_no_redirect_followed(
    gateway: World, cloud: ReplicateCloud, fault: Fields, status: int, words: str
) -> None:
    for name, value in fault.items():
        setattr(cloud, name, value)
    stream = "cut_after" in fault or "error_after" in fault
    found, _, body = await gateway.post(CHAT, ASKED | {"stream": stream})
    assert found == status
    assert words in orjson.loads(body)["error"]["message"]
    assert not any("elsewhere" in path for path in cloud.paths)


@pytest.mark.parametrize(
    ("fault", "rests"),
    [({"ends": "failed"}, 0), ({"error_after": 0}, 0), ({"ends": "aborted"}, 1)],
    ids=str,
)
async def test_a_prompt_on_which_the_model_fails_shuts_nobody_else_out(
    gateway: World, cloud: ReplicateCloud, fault: Fields, rests: int
) -> None:
    for name, value in fault.items():
        setattr(cloud, name, value)
    await gateway.post(CHAT, ASKED | {"stream": "error_after" in fault})
    assert [p.breaker.rests for p in gateway.state.providers.values()] == [rests]


async def test_a_stream_that_fails_midway_ends_with_an_error(
    gateway: World, cloud: ReplicateCloud
) -> None:
    cloud.error_after = 2
    with pytest.raises(openai.APIError):
        await streamed(gateway)
    assert len(cloud.predictions) == 1  # nobody else was asked


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_the_prediction(
    gateway: World, cloud: ReplicateCloud, stream: bool
) -> None:
    """A unary one leaves while the prediction is made, before its id is known."""
    cloud.gate.clear()
    cloud.longest_wait = 0.3
    asked = asyncio.create_task(gateway.post(CHAT, ASKED | {"stream": stream}))
    await until(lambda: any("files" in p for p in cloud.paths) if stream else cloud.made.is_set())
    asked.cancel()
    await asyncio.wait_for(cloud.cancelled.wait(), 15)
    (prediction,) = cloud.predictions.values()
    assert prediction["status"] == "canceled"


async def test_without_counts_a_cost_is_estimated(gateway: World, cloud: ReplicateCloud) -> None:
    cloud.metrics = {"predict_time": 0.5}
    _, headers, body = await gateway.post(CHAT, ASKED)
    assert orjson.loads(body)["usage"] is None
    assert float(headers["x-overspill-cost-usd"]) > 0


@pytest.mark.parametrize("ends", ["succeeded", "failed"])
async def test_a_budget_pays_what_was_used_and_for_a_failure_the_most_that_was_possible(
    cloud: ReplicateCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(funds, "GRANT_SECONDS", 30.0)  # the machine may be busy
    cloud.ends = ends
    async with world(hold=0.2) as w:
        spill_to(w, cloud, budget={"perDay": "1"})
        async with keeping(tmp_path, w.plane, w.stop):
            await w.post(CHAT, {"model": "chat", "messages": [HI]})
        page = await w.metrics()
    (cost,) = [x for x in page.splitlines() if "cost_dollars_total{" in x and "team-a/far" in x]
    most = (len(orjson.dumps({"model": "chat", "messages": [HI]})) + 64) * 5 + 4096 * 25
    assert cloud.inputs == [{"prompt": "hi", "max_tokens": 4096}]  # with which it was counted
    expected = float(COST) if ends == "succeeded" else most / 1e6
    assert float(cost.split()[-1]) == pytest.approx(expected)


def test_the_key_goes_to_replicates_two_hosts_or_nowhere() -> None:
    spec = {"type": "replicate", "secretRef": {"name": "key"}, "models": [{"name": MODEL}]}
    raw = {"metadata": {"name": "far", "namespace": "team-a"}, "spec": spec}
    provider = InferenceProvider.parse(raw)
    hosts = "api.replicate.com,stream.replicate.com"
    for named, reason in [(hosts, "Ready"), ("api.replicate.com", "SecretHostNotAllowed")]:
        metadata = {"annotations": {"overspill.dev/provider-hosts": named}}
        secret = {"metadata": metadata, "data": {"api-key": "c2stMQ=="}}
        _, found, message = read_secret(provider, secret)
        assert found == reason
        assert not message or f"provider-hosts={hosts} --overwrite" in message
