"""A key beyond its limits per minute is refused in its API's own form, and told the truth."""

import anthropic
import openai
import orjson
import pytest
from gateway_world import BODY, MESSAGES, Upstream, World, chat, until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overspill.api.keys import ClientKey, digest, key_secret
from overspill.gateway.errors import ApiError
from overspill.gateway.quota import Quotas, _spelled
from overspill.gateway.share import Share


def limit(w: World, **limits: int) -> None:
    """Give the client's key limits."""
    w.state.keys.replace(
        [key_secret("overspill-system", "ci", digest(w.key), "team-a", **limits)]  # type: ignore[arg-type]
    )


async def test_an_openai_client_sees_what_remains_then_a_429(
    gateway: World, engine: Upstream
) -> None:
    limit(gateway, requests_per_minute=1, tokens_per_minute=6000)
    status, headers, _ = await chat(gateway)
    assert status == 200
    told = {k: v for k, v in headers.items() if k.startswith("x-ratelimit-")}
    assert told == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5962",
        "x-ratelimit-reset-tokens": "380ms",
    }
    with pytest.raises(openai.RateLimitError) as info:
        await gateway.sdk().chat.completions.create(model="chat", messages=MESSAGES)  # type: ignore[arg-type]
    assert info.value.code == "rate_limit_exceeded"
    assert "Rate limit reached for key ci on requests per min (RPM): Limit 1, Requested 1." in (
        info.value.message
    )
    assert 1 <= int(info.value.response.headers["retry-after"]) <= 60
    assert info.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(engine.bodies) == 1
    page = await gateway.metrics()
    assert 'overspill_requests_total{code="429",destination="none"' in page


async def test_an_anthropic_client_gets_its_own_form(gateway: World) -> None:
    limit(gateway, requests_per_minute=1)
    client = anthropic.AsyncAnthropic(api_key=gateway.key, base_url=gateway.url, max_retries=0)
    async with client:
        await client.messages.create(model="chat", max_tokens=5, messages=MESSAGES)  # type: ignore[arg-type]
        with pytest.raises(anthropic.RateLimitError) as info:
            await client.messages.create(model="chat", max_tokens=5, messages=MESSAGES)  # type: ignore[arg-type]
    assert info.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert int(info.value.response.headers["retry-after"]) > 1


async def test_tokens_count_as_expected_until_the_request_has_ended(
    gateway: World, engine: Upstream
) -> None:
    limit(gateway, tokens_per_minute=40)
    engine.gate.clear()
    first = chat(gateway)
    await until(lambda: bool(engine.bodies))
    status, _, body = await chat(gateway)
    assert (status, orjson.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    engine.gate.set()
    assert (await first)[0] == 200
    assert gateway.plane.gateway.quotas._throttles["ci"].tokens.level >= 40 - 9  # type: ignore[union-attr]
    status, headers, body = await gateway.post("/v1/chat/completions", BODY)
    assert (status, orjson.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert "retry-after" not in {name.lower() for name in headers}


def key(name: str = "ci", rpm: int | None = 60, tpm: int | None = 600) -> ClientKey:
    return ClientKey(name, "", "team-a", ("*/*",), requests_per_minute=rpm, tokens_per_minute=tpm)


def admitted(
    quotas: Quotas, now: float, tokens: int = 1, share: Share | None = None
) -> ApiError | None:
    try:
        quotas.admit(key(), tokens, share or Share(), now)
    except ApiError as error:
        return error
    return None


# Float sums: the moment told may be a hair before that at which the last token is there.
@example([(1.2204866839062003, 0), (2.0, 316), (1.0696829082930233, 407), (1.225243491440609, 300),
          (0.0, 217), (1.2393313115828213, 300), (1.2393313115828213, 341),
          (1.168777149387723, 411), (1.7057192051507926, 298), (0.0, 237)], 2)  # fmt: skip
@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 600)), max_size=15), st.integers(1, 3))
def test_who_comes_back_when_told_is_let_in(
    arrivals: list[tuple[float, int]], gateways: int
) -> None:
    quotas, now = Quotas(()), 0.0
    for gap, tokens in arrivals:
        now += gap
        error = admitted(quotas, now, tokens, Share(0, gateways))
        if error is not None:
            now += int(dict(error.headers)[b"retry-after"])
            assert admitted(quotas, now, tokens, Share(0, gateways)) is None


def test_each_gateway_has_its_part_and_a_key_that_is_gone_is_forgotten() -> None:
    quotas = Quotas({"ci"})
    assert [admitted(quotas, 0.0, share=Share(1, 2)) for _ in range(31)].count(None) == 30
    assert not key(rpm=None, tpm=None).limited
    quotas.admit(key("gone"), 1, Share(), 0.0)
    quotas.admit(key("other"), 1, Share(), 0.0)
    assert set(quotas._throttles) == {"ci", "other"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.0121, "13ms"), (1.0, "1s"), (1.42, "1.5s"), (59.99, "1m0s"), (360, "6m0s")],
)
def test_times_as_openai_spells_them(seconds: float, text: str) -> None:
    assert _spelled(seconds) == text
