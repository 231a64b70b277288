"""Money is exact: integers of nano-dollars, rounded up once per request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.provider import Price
from overspill.ledger.prices import Rates, Usage, cost, estimate, parse_usage

GPT = Rates.of(Price(inputPerMTok="1.75", cachedInputPerMTok="0.175", outputPerMTok="14"))


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(0, 0), 0),
        (Usage(1_000_000, 0), 1_750_000_000),
        (Usage(0, 1_000_000), 14_000_000_000),
        (Usage(1000, 100), 3_150_000),
        (Usage(1000, 0, cached=1000), 175_000),
        (Usage(1000, 0, cached=400), 600 * 1750 + 400 * 175),
        (Usage(1, 0), 1750),
    ],
)
def test_cost(usage: Usage, nano: int) -> None:
    assert cost(GPT, usage) == nano


def test_without_a_cached_price_cached_tokens_cost_the_same() -> None:
    rates = Rates.of(Price(inputPerMTok="2", outputPerMTok="3"))
    assert cost(rates, Usage(10, 0, cached=10)) == cost(rates, Usage(10, 0))


def test_a_fraction_of_a_nano_dollar_is_rounded_up() -> None:
    rates = Rates.of(Price(inputPerMTok="0.000000001", outputPerMTok="0"))
    assert cost(rates, Usage(1, 0)) == 1


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_more_tokens_never_cost_less(prompt: int, completion: int, more: int) -> None:
    assert cost(GPT, Usage(prompt, completion)) <= cost(GPT, Usage(prompt + more, completion))
    assert cost(GPT, Usage(prompt, completion)) <= cost(GPT, Usage(prompt, completion + more))


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 4}, Usage(5, 4)),
        ({"prompt_tokens": 5}, None),
        # thoughts beside the completion: xAI, and Gemini in OpenAI's form
        ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 309}, Usage(5, 304)),
        ({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 65}, Usage(5, 60)),
        ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 3}, Usage(5, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 10**30}, None),
        ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": "309"}, Usage(5, 4)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, None),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 3},
            },
            Usage(5, 4, 3),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 9},
            },
            Usage(5, 4, 5),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": None}, Usage(5, 4)),
        ({"prompt_tokens": -5, "completion_tokens": 4}, None),
        ({"prompt_tokens": 5.5, "completion_tokens": 4}, None),
        ({"prompt_tokens": True, "completion_tokens": 4}, None),
        ({"prompt_tokens": "5", "completion_tokens": 4}, None),
        ({"completion_tokens": 4}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_is_taken_only_when_sound(raw: Any, usage: Usage | None) -> None:
    assert parse_usage(raw) == usage


def test_embeddings_read_only() -> None:
    assert parse_usage({"prompt_tokens": 5, "total_tokens": 5}, answers=False) == Usage(5, 0)


def test_an_estimate_is_never_zero_and_says_what_it_is() -> None:
    assert estimate(0, 0) == Usage(1, 1, estimated=True)
    assert estimate(3000, 7) == Usage(1001, 7, estimated=True)
