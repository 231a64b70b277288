"""The figures of cost hang together, whatever was used."""

from dataclasses import astuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from overspill.api.values import NANO
from overspill.ledger.economy import HOUR, Use, at_cloud, cost
from overspill.ledger.prices import MILLION, Rates, Usage
from overspill.ledger.prices import cost as of_request

DOLLARS = st.floats(0, 1e6)
TOKENS = st.integers(0, 10**12)
USES = st.builds(
    Use, st.floats(0, 1e5), DOLLARS, DOLLARS, TOKENS, TOKENS, TOKENS, TOKENS, DOLLARS, DOLLARS
)
RATE = st.integers(10**6, 10**11)
RATES = st.builds(Rates, RATE, RATE, RATE, RATE)


@given(USES, st.floats(0, 100), RATES)
def test_every_dollar_and_token_is_in_the_sums(use: Use, hour: float, rates: Rates) -> None:
    found = cost(use, hour, rates)
    own, cloud, both = (
        (found.own_dollars_per_m_tok or 0) * use.own_tokens,
        (found.cloud_dollars_per_m_tok or 0) * use.spilled_tokens,
        (found.dollars_per_m_tok or 0) * (use.own_tokens + use.spilled_tokens),
    )
    if use.own_tokens and use.spilled_tokens:
        assert own + cloud == pytest.approx(both)
        prices = sorted((found.own_dollars_per_m_tok or 0, found.cloud_dollars_per_m_tok or 0))
        assert prices[0] * (1 - 1e-9) <= (found.dollars_per_m_tok or 0) <= prices[1] * (1 + 1e-9)
    assert found.dollars_per_hour == use.gpu_dollars_hour + use.spilled_dollars_hour


@given(USES, RATES)
def test_what_was_paid_and_what_was_saved_is_the_all_cloud_bill(use: Use, rates: Rates) -> None:
    found = cost(use, 1.0, rates)
    assert found.saved_dollars is not None
    all_cloud = at_cloud(use, rates) + use.spilled_dollars
    paid = found.gpu_dollars + found.spilled_dollars
    assert paid + found.saved_dollars == pytest.approx(all_cloud, abs=1e-6)


@given(USES, st.floats(0.01, 100), RATES)
def test_at_the_break_even_rate_both_sides_cost_the_same(
    use: Use, hour: float, rates: Rates
) -> None:
    """A replica that has answered at this rate has cost what the provider would have taken."""
    assume(use.own_tokens)
    rate = cost(use, hour, rates).break_even_tokens_per_second
    assert rate is not None
    hours = use.own_tokens / rate / HOUR  # of one replica, always busy at that rate
    assert at_cloud(use, rates) == pytest.approx(hours * hour)
    saved = cost(Use(**_fields(use) | {"gpu_dollars": hours * hour}), hour, rates).saved_dollars
    assert saved == pytest.approx(0, abs=1e-6 * hours * hour)


@given(USES, RATES, st.integers(2, 9))
def test_twice_the_use_costs_twice_and_no_token_more(use: Use, rates: Rates, times: int) -> None:
    one, many = (cost(u, 1.0, rates) for u in (use, Use(*(times * v for v in astuple(use)))))
    assert many.saved_dollars == pytest.approx((one.saved_dollars or 0) * times)
    assert many.dollars_per_m_tok == pytest.approx(one.dollars_per_m_tok)
    assert many.break_even_tokens_per_second == pytest.approx(one.break_even_tokens_per_second)


@given(st.integers(0, 10**6), st.integers(0, 10**6), RATES)
def test_one_request_costs_there_what_the_ledger_charges(
    prompt: int, answer: int, rates: Rates
) -> None:
    nano = of_request(rates, Usage(prompt, answer, cached=prompt // 2))
    use = Use(own_input=prompt - prompt // 2, own_cached=prompt // 2, own_output=answer)
    assert at_cloud(use, rates) * NANO == pytest.approx(nano, abs=1)


def test_an_example() -> None:
    """A GPU of $0.80, idle half of the day, and gpt-5.2 at $1.75 and $14 per million."""
    gpt = Rates(1_750_000_000, 175_000_000, 14_000_000_000, 0)
    use = Use(24, 19.2, 7.0, own_input=4 * MILLION, own_output=2 * MILLION, spilled_tokens=MILLION)
    found = cost(use, 0.8, gpt)
    assert found.own_dollars_per_m_tok == pytest.approx(3.2)
    assert found.cloud_dollars_per_m_tok == 7.0
    assert found.dollars_per_m_tok == pytest.approx(26.2 / 7)
    assert found.saved_dollars == pytest.approx(35 - 19.2)
    assert found.break_even_tokens_per_second == pytest.approx(0.8 / 3600 / (35 / 6e6))


def test_without_use_or_price_nothing_is_said() -> None:
    nothing = cost(Use(), 0.8, None)
    assert {name for name, value in nothing if value is None} == {
        "dollars_per_m_tok", "own_dollars_per_m_tok", "cloud_dollars_per_m_tok", "saved_dollars",
        "break_even_tokens_per_second",
    }  # fmt: skip
    paid = Use(spilled_dollars=7.0, spilled_tokens=MILLION)
    assert cost(paid, 0.7, None).break_even_tokens_per_second == pytest.approx(0.7 / 3600 / 7e-6)
    assert cost(paid, 0.0, None).break_even_tokens_per_second is None, "no price, no comparison"


def _fields(use: Use) -> dict[str, float]:
    return dict(zip(Use.__dataclass_fields__, astuple(use), strict=True))
