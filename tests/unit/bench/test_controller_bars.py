"""The bars of the operator's benchmark."""

from bench.controller_bars import bars

GOOD = {"target": "overspill", "seconds": 30.0, "peak_rss_mb": 250, "idle_writes": 0}


def missed(*, target: str = "overspill", services: int = 1000, **changed: float) -> list[str]:
    """Which columns of one row pass their bars."""
    row = {**GOOD, "restart_writes": 0, "target": target, "services": services, **changed}
    return [text.split()[2] for met, text in bars([row]) if not met]


def test_each_bar_counts_where_it_is_said() -> None:
    assert len(bars([{**GOOD, "restart_writes": 0, "services": 1000}])) == 3
    assert missed() == missed(services=5000) == []
    assert missed(seconds=30.1) == ["seconds"]
    assert missed(services=5000, seconds=900, peak_rss_mb=251) == ["peak_rss_mb"]
    assert missed(services=100, idle_writes=1, restart_writes=2) == [
        "idle_writes",
        "restart_writes",
    ]
    assert bars([{**GOOD, "restart_writes": 9, "services": 1000, "target": "plain-kopf"}]) == []
