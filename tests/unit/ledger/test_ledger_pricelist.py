"""The bundled price list: what it is used for, and that a request costs what the library says."""

from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.provider import (
    DEFAULT_BASE_URL,
    InferenceProvider,
    InferenceProviderSpec,
    ProviderType,
)
from overspill.api.values import NANO
from overspill.controller.listing import of_prices, price_list
from overspill.gateway.provider import Provider
from overspill.gateway.share import Share
from overspill.ledger import pricelist
from overspill.ledger.prices import MILLION, Rates, Usage, cost, worst_case

TODAY = date(2026, 11, 30)
STATED = {"inputPerMTok": "1", "outputPerMTok": "2"}


def spec(*models: str, **more: Any) -> InferenceProviderSpec:
    listed = [{"name": model} for model in models]
    given = {"type": "openai", "secretRef": {"name": "key"}, "models": listed, **more}
    return InferenceProviderSpec.model_validate(given)


def test_the_date_is_that_of_the_pinned_release() -> None:
    """A new release of the list: look up its day at its publisher, and write it here and there."""
    assert (version("genai-prices"), pricelist.PUBLISHED) == ("0.2.3", date(2026, 11, 10))
    assert not get_snapshot().from_auto_update


SOLD = [
    (type_, model.id)
    for type_ in (ProviderType.OPENAI, ProviderType.ANTHROPIC)
    for model in next(p for p in get_snapshot().providers if p.id == type_).models
]
PRICED = [
    (type_, model, rates)
    for type_, model in SOLD
    if (rates := pricelist.rates(spec(model, type=type_), model, TODAY))
]
LENGTHS = st.one_of(
    st.integers(0, 2 * 10**6), st.sampled_from([100_000, 200_000, 272_000])
).flatmap(lambda n: st.sampled_from([n, n + 1]))


def test_most_models_of_the_two_have_a_price_and_some_have_steps() -> None:
    assert len(PRICED) > 0.6 * len(SOLD)
    assert sum(bool(rates.steps) for _, _, rates in PRICED) >= 15


@given(st.sampled_from(PRICED), LENGTHS, st.integers(0, 10**5), st.data())
def test_a_request_costs_what_the_library_says(
    priced: tuple[ProviderType, str, Rates], prompt: int, answer: int, data: st.DataObject
) -> None:
    """Cached input, cache writes and long contexts too; ours is rounded up to a nano-dollar."""
    type_, model, rates = priced
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=prompt, output_tokens=answer,
            cache_read_tokens=cached, cache_write_tokens=written,
        ),
        model,
        provider_api_url=DEFAULT_BASE_URL[type_],
        genai_request_timestamp=datetime(2026, 11, 30, 12, tzinfo=UTC),
    )  # fmt: skip
    usage = Usage(prompt, answer, cached, written)
    assert 0 <= cost(rates, usage) - theirs.total_price * NANO < 1
    most = Usage(prompt + 1, answer, written=prompt + 1)
    assert cost(rates, usage) <= worst_case(rates, most)
    if rates.unasked or not written:
        assert cost(rates, usage) <= worst_case(rates, Usage(prompt + 1, answer))


def test_a_long_prompt_is_priced_as_a_whole() -> None:
    """One request of 1M and 1M tokens: $28.50, not the $18 of its parts by the base price."""
    model = "claude-sonnet-4-5"
    rates = pricelist.rates(spec(model, type="anthropic"), model, TODAY)
    assert rates is not None
    assert cost(rates, Usage(MILLION, MILLION)) == int(28.5 * NANO)
    assert cost(rates, Usage(200_000, 0)) == int(0.6 * NANO)
    assert cost(rates, Usage(200_001, 0)) == 200_001 * 6000


@pytest.mark.parametrize(
    ("found", "model"),
    [
        (spec("gpt-99"), "gpt-99"),
        (spec("gpt-5.2", baseURL="https://llm.example.com/v1"), "gpt-5.2"),
        (spec("gpt-5.2", baseURL="http://api.openai.com/v1", insecure=True), "gpt-5.2"),
        (spec("gpt-5.2", baseURL="https://mine.openai.azure.com/openai/v1"), "gpt-5.2"),
        (
            spec("gpt-5.2", baseURL="https://x.example/openai", azureApiVersion="2024-10-21"),
            "gpt-5.2",
        ),
        (spec("deepseek-chat", baseURL="https://api.deepseek.com/v1"), "deepseek-chat"),
        (spec("sonar", baseURL="https://api.perplexity.ai"), "sonar"),
        (spec("gpt-5.2"), "not listed in models, so never asked for: gpt"),
    ],
    ids=["unknown", "elsewhere", "plain http", "azure", "old azure", "hours", "requests", "other"],
)
def test_what_the_list_cannot_tell_has_no_price(found: InferenceProviderSpec, model: str) -> None:
    assert pricelist.rates(found, model, TODAY) is None


def test_a_price_of_nothing_is_none() -> None:
    """Or a budget would not stop what a mistake of the list makes free."""
    assert pricelist._rates(ModelPrice(input_mtok=Decimal(0), output_mtok=Decimal(0)), True) is None
    assert pricelist._rates(ModelPrice(), True) is None


def test_a_stated_price_wins() -> None:
    own = spec(models=[{"name": "gpt-5.2", "price": STATED}, {"name": "gpt-5.1"}])
    known = pricelist.rates_of(own, TODAY)
    assert (known["gpt-5.2"].prompt, known["gpt-5.2"].steps) == (NANO, ())
    assert known["gpt-5.1"].prompt == int(1.25 * NANO)
    assert [*pricelist.listed(own, TODAY)] == ["gpt-5.1"]


def test_a_gateway_spills_at_list_price_and_nowhere_without() -> None:
    metadata = {"name": "openai", "namespace": "team-a", "uid": "u"}
    found = spec("gpt-5.2", "gpt-99").to_dict()
    provider = Provider(InferenceProvider.parse({"metadata": metadata, "spec": found}))
    provider.configure(provider.resource, Share(), 0.0)
    provider.set_key("secret", "Ready", "", 0.0)
    assert provider.unfit_for("team-a", "gpt-5.2") == ""
    assert "price" in provider.unfit_for("team-a", "gpt-99")


def test_a_price_that_changes_on_a_day_does() -> None:
    found = spec("gemini-3.6-flash", baseURL="https://generativelanguage.googleapis.com/v1beta")
    before, after = (
        pricelist.rates(found, "gemini-3.6-flash", day)
        for day in (date(2026, 12, 31), date(2027, 1, 1))
    )
    assert before is not None
    assert after is not None
    assert (before.completion, after.completion) == (3750000000, 7500000000)


@pytest.mark.parametrize(
    ("found", "today", "expected"),
    [
        (spec("gpt-5.2"), TODAY, ("True", "ListPrices", "of gpt-5.2 are from")),
        (spec("gpt-5.2"), date(2027, 2, 9), ("False", "ListPricesOld", "91 days old")),
        (spec("gpt-5.2", "gpt-99"), TODAY, ("False", "PriceMissing", "gpt-99 at api.openai.com")),
        (spec(models=[{"name": "x", "price": STATED}]), date(2030, 1, 1), None),
    ],
)
def test_the_condition(found: InferenceProviderSpec, today: date, expected: Any) -> None:
    verdict = of_prices(found, today)
    if expected is None:
        assert verdict is None
        assert price_list(found, today) is None
        return
    assert verdict is not None
    assert (verdict.status, verdict.reason) == expected[:2]
    assert expected[2] in verdict.message


def test_the_status_shows_the_prices_that_are_used() -> None:
    shown = price_list(spec("gpt-99", "claude-sonnet-4-5", type="anthropic"), TODAY)
    assert shown is not None
    assert shown.published == "2026-11-10"
    assert [[*row.to_dict().values()] for row in shown.prices] == [
        ["claude-sonnet-4-5", 0, "3", "0.3", "15"],
        ["claude-sonnet-4-5", 200000, "6", "0.6", "22.5"],
    ]
