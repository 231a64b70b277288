"""The bars of the gateway's benchmark: medians against vllm-router's of the same run."""

from typing import Any

import pytest
from bench.gateway_bars import bars, table


def rows(target: str, per_second: list[float], *, errors: int = 0) -> list[dict[str, Any]]:
    """Return a round of whole answers for each figure."""
    cell = {"body_bytes": 150, "connections": 32, "stream": False, "policy": "x"}
    times = {"p50_ms": 1.0, "p99_ms": 2.0, "rss_mb": 50.0, "errors": errors}
    return [
        cell | times | {"target": target, "round": number, "requests_per_s": found}
        | {"cpu_us_per_request": 1e6 / found, "cpu_us_per_chunk": None}
        for number, found in enumerate(per_second, 1)
    ]  # fmt: skip


def streams(target: str, per_chunk: float | None) -> dict[str, Any]:
    (row,) = rows(target, [1.0])
    return row | {"stream": True, "cpu_us_per_chunk": per_chunk}


def met(*parts: list[dict[str, Any]]) -> list[bool]:
    return [met for met, _ in bars([row for part in parts for row in part])]


@pytest.mark.parametrize(
    ("ours", "expected"),
    [([7000.0, 7001.0, 1.0], True), ([6999.0, 6998.0, 99999.0], False)],
)
def test_the_median_counts(ours: list[float], expected: bool) -> None:
    assert met(rows("overspill", ours), rows("vllm-router", [10000.0] * 3)) == [expected, True]


def test_every_bar_is_there() -> None:
    found = [rows("overspill", [4000.0]), rows("vllm-router", [4000.0]), rows("litellm", [101.0])]
    chunks = [[streams("overspill", 30.0)], [streams("vllm-router", 20.0)]]
    assert met(*found, *chunks) == [True, False, True, True]
    assert met([streams("overspill", 30.1)], chunks[1]) == [False, True]
    assert met([streams("overspill", None)], chunks[1]) == [False, True]  # no chunk came


def test_an_error_of_ours_misses_a_bar() -> None:
    assert met(rows("overspill", [1.0], errors=1), rows("vllm-router", [1.0])) == [True, False]
    assert met(rows("overspill", [1.0]), rows("vllm-router", [1.0], errors=1)) == [True, True]


def test_the_table_shows_median_and_spread() -> None:
    text = table([*rows("overspill", [100.0, 300.0, 200.0]), *rows("vllm-router", [400.0])])
    assert "200 (100–300)" in text
    assert "0.50" in text
