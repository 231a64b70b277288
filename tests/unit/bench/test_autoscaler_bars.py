"""The bars of the autoscaler's benchmark: what counts as met, and what a single seed proves."""

from typing import Any

from bench.autoscaler_bars import bars, table


def rows(policy: str, costs: list[float], setting: float = 0.0) -> list[dict[str, Any]]:
    cell = {"level": "fluid", "trace": "m-large", "price_ratio": 3.0, "boot_s": 120.0}
    return [
        cell | {"policy": policy, "setting": setting, "seed": seed, "cost": cost, "optimum": 100.0}
        for seed, cost in enumerate(costs)
    ]


def met(*parts: list[dict[str, Any]]) -> list[bool]:
    return [met for met, _ in bars([row for part in parts for row in part])]


def test_cheaper_than_lcp_beyond_the_interval() -> None:
    """The interval is that of the differences: seeds that are dear for both say nothing."""
    ours, lcp = rows("overspill", [102.0, 112.0, 122.0]), rows("lcp", [103.0, 113.2, 123.1])
    assert met(ours, lcp) == [True, False]
    assert met(ours, rows("lcp", [103.0, 111.5, 124.0])) == [False, False]
    assert met(ours[:1], lcp[:1]) == [False, True]  # one seed has no interval


def test_a_wrong_forecast_may_cost_five_percent_over_none() -> None:
    parts = (
        rows("overspill", [103.0, 103.0]),
        rows("lcp", [105.0, 105.0]),
        rows("overspill, forecast none", [104.0]),
        rows("overspill, forecast shifted", [109.0]),
        rows("overspill, forecast inverted", [110.0]),
    )
    assert met(*parts) == [True, True, True, False]


def test_the_table_takes_the_best_setting() -> None:
    text = table([*rows("hpa", [140.0], 0.5), *rows("hpa", [120.0], 0.8)])
    assert "1.2000" in text
    assert "1.4000" not in text


def discrete(policy: str, cost: float, ttft: float, setting: float = 0.0) -> list[dict[str, Any]]:
    more = {"level": "discrete", "trace": "azure", "ttft_attainment": ttft, "itl_attainment": 0.999}
    return [row | more for row in rows(policy, [cost, cost], setting)]


def test_only_who_keeps_the_objectives_is_a_rival() -> None:
    cheap_but_late = discrete("wva", 90.0, 0.98)
    hpa = [*discrete("hpa", 95.0, 0.985, 1.2), *discrete("hpa", 120.0, 0.999, 0.8)]
    assert met(discrete("overspill", 110.0, 0.995), cheap_but_late, hpa) == [True, True]
    assert met(discrete("overspill", 130.0, 0.995), cheap_but_late, hpa) == [True, False]
    assert met(discrete("overspill", 110.0, 0.99), hpa) == [False, False]
