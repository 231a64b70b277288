"""The official SDK talks to the gateway; the gateway talks to a server that plays an engine."""

import openai
import orjson
import pytest
import structlog
from gateway_world import MESSAGES, USAGE, Upstream, World, endpoint_slice, service, world
from structlog.testing import LogCapture


async def test_chat_unary(gateway: World, engine: Upstream) -> None:
    raw = await gateway.sdk().chat.completions.with_raw_response.create(
        model="chat", messages=MESSAGES, max_tokens=4
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello world"
    assert answer.usage.total_tokens == 9
    assert raw.headers["x-overspill-destination"] == "local"
    assert raw.headers["x-overspill-cost-usd"] == "0"
    assert len(raw.headers["x-overspill-request-id"]) == 32
    assert "x-overspill-reason" not in raw.headers
    assert engine.bodies == [{"model": "chat", "messages": MESSAGES, "max_tokens": 4}]
    assert "Authorization" not in engine.seen_headers[0]


async def test_chat_stream_without_the_usage_that_nobody_asked_for(
    gateway: World, engine: Upstream
) -> None:
    stream = await gateway.sdk().chat.completions.create(
        model="chat", messages=MESSAGES, stream=True
    )
    chunks = [c async for c in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello world"
    assert all(c.choices for c in chunks)
    assert engine.bodies[0]["stream_options"] == {"include_usage": True}
    page = await gateway.metrics()
    labels = 'service_name="chat",service_namespace="team-a"'
    assert f'overspill_tokens_total{{destination="local",kind="output",{labels}}} 4.0' in page
    assert f"overspill_requests_within_objective_total{{{labels}}} 1.0" in page
    assert (
        f'overspill_time_to_first_token_seconds_count{{destination="local",{labels}}} 1.0' in page
    )


async def test_chat_stream_with_usage_when_asked(gateway: World) -> None:
    stream = await gateway.sdk().chat.completions.create(
        model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [c async for c in stream]
    assert chunks[-1].usage.total_tokens == USAGE["total_tokens"]


async def test_stream_bytes_are_passed_on_as_they_came(gateway: World) -> None:
    body = {"model": "chat", "messages": MESSAGES, "stream": True}
    status, headers, data = await gateway.post("/v1/chat/completions", body)
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["x-overspill-destination"] == "local"
    events = data.split(b"\n\n")
    assert events[-3:] == [b": x-overspill-cost-usd=0", b"data: [DONE]", b""]
    assert all(e.startswith((b"data: ", b": ")) for e in events[:-1])
    assert orjson.loads(events[1][6:])["choices"][0]["delta"]["content"] == "Hel"


async def test_completions_embeddings_and_models(gateway: World, engine: Upstream) -> None:
    sdk = gateway.sdk()
    answer = await sdk.completions.create(model="chat", prompt="say")
    assert answer.choices[0].text == "Hello world"
    vectors = await sdk.embeddings.create(model="chat", input="x", encoding_format="float")
    assert vectors.data[0].embedding == [0.5, 0.25]
    assert [m.id async for m in sdk.models.list()] == ["chat"]


async def test_exact_name_reaches_the_engine_as_the_name_it_serves(
    gateway: World, engine: Upstream
) -> None:
    await gateway.sdk().chat.completions.create(model="team-a/chat", messages=MESSAGES)
    assert engine.bodies[0]["model"] == "chat"


async def test_load_goes_to_the_least_loaded_replica(gateway: World, engine: Upstream) -> None:
    async with Upstream().serving() as second:
        gateway.replicas(engine, second)
        for _ in range(4):
            await gateway.sdk().chat.completions.create(model="chat", messages=MESSAGES)
        assert (len(engine.bodies), len(second.bodies)) == (2, 2)


ERRORS = [
    # path, body, headers, status, code, param
    ("/v1/chat/completions", {}, {"Authorization": ""}, 401, "invalid_api_key", None),
    ("/nowhere", {}, {"Authorization": "Bearer osk-wrong"}, 401, "invalid_api_key", None),
    ("/nowhere", {}, {}, 404, "not_found", None),
    ("/v1/chat/completions/", {}, {}, 404, "not_found", None),
    ("/v1/%63hat/completions", {}, {}, 404, "not_found", None),
    ("/v1/models", {}, {}, 405, "method_not_allowed", None),
    ("/v1/chat/completions", b"{", {}, 400, "invalid_json", None),
    ("/v1/chat/completions", b"[1]", {}, 400, "invalid_json", None),
    ("/v1/chat/completions", b'{"a":' * 2000, {}, 400, "invalid_json", None),
    ("/v1/chat/completions", b'{"n": NaN}', {}, 400, "invalid_json", None),
    ("/v1/chat/completions", b"\xff\xfe", {}, 400, "invalid_json", None),
    ("/v1/chat/completions", {"messages": MESSAGES}, {}, 400, "invalid_value", "model"),
    (
        "/v1/chat/completions",
        {"model": "other", "messages": MESSAGES},
        {},
        404,
        "model_not_found",
        "model",
    ),
    (
        "/v1/chat/completions",
        {"model": "chat", "messages": MESSAGES},
        {"x-overspill-data-policy": "nevr"},
        400,
        "invalid_value",
        "x-overspill-data-policy",
    ),
    ("/v1/chat/completions", b"x" * 20_000, {}, 413, "request_too_large", None),
    ("/v1/chat/completions", b"x" * 70_000, {}, 413, "request_too_large", None),
    ("/v1/chat/completions", {}, {"Content-Encoding": "gzip"}, 400, "encoding", None),
]


async def test_who_has_no_key_cannot_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = LogCapture()
    logger = structlog.wrap_logger(
        None, processors=[logs], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    monkeypatch.setattr("overspill.gateway.app.log", logger)
    async with world() as w:
        await w.post("/v1/chat/completions", {}, Authorization="")
        await w.post("/nowhere", {})
    refused = [(entry["status"], entry["log_level"]) for entry in logs.entries]
    assert refused == [(401, "debug"), (404, "info")]


async def test_errors_have_the_shape_of_the_api() -> None:
    async with world(max_body=16_384) as w:
        w.state.put_service(service())
        for path, body, headers, status, code, param in ERRORS:
            got, sent, data = await w.post(path, body, **headers)
            error = orjson.loads(data)["error"]
            assert (path, got, error["code"], error["param"]) == (path, status, code, param)
            assert error["message"]
            assert error["type"] in {"invalid_request_error", "authentication_error"}
            assert len(sent["x-overspill-request-id"]) == 32


async def test_sdk_raises_its_own_errors(gateway: World) -> None:
    with pytest.raises(openai.AuthenticationError):
        await gateway.sdk("osk-unknown").models.list()
    with pytest.raises(openai.NotFoundError):
        await gateway.sdk().chat.completions.create(model="nothing", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="chat_template"):
        await gateway.sdk().chat.completions.create(
            model="chat", messages=MESSAGES, extra_body={"chat_template": "x"}
        )


async def test_key_in_x_api_key_works_too(gateway: World) -> None:
    body = {"model": "chat", "messages": MESSAGES}
    headers = {"Authorization": "", "x-api-key": gateway.key}
    status, _, _ = await gateway.post("/v1/chat/completions", body, **headers)
    assert status == 200


async def test_an_engines_refusal_is_passed_on(gateway: World, engine: Upstream) -> None:
    engine.status = 400
    engine.error = {"error": {"message": "the context is too long", "type": "exceed_context"}}
    with pytest.raises(openai.BadRequestError, match="too long") as info:
        await gateway.sdk().chat.completions.create(model="chat", messages=MESSAGES)
    assert info.value.code == "exceed_context"
    assert len(engine.bodies) == 1


async def test_removed_replicas_get_nothing(gateway: World, engine: Upstream) -> None:
    gateway.state.put_slice(endpoint_slice(engine.address, ready=False))
    async with Upstream().serving() as second:
        gateway.state.put_slice(endpoint_slice(second.address))
        await gateway.sdk().chat.completions.create(model="chat", messages=MESSAGES)
        assert (len(engine.bodies), len(second.bodies)) == (0, 1)
