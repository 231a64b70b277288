"""The live comparison: its load, what it bills, and who keeps the objective."""

import math
from pathlib import Path
from typing import Any

import pytest

import live_load
import live_report
import live_systems
import live_watch
from lab.load import Sent

HOURS = 24 * 6  # windows of ten minutes


def trace(folder: Path) -> Path:
    """A day whose rate is that of the peak, but a quarter of it in the hour that is played."""
    first = int(live_load.BEGIN // 600)
    rates = [583.0 / 4 if first <= n < first + 6 else 583.0 for n in range(HOURS)]
    lines = [f"{600 * n},{rate},9999" for n, rate in enumerate(rates)]
    path = folder / live_load.TRACE
    path.write_text("window_start_s,rate_rps,count_variance_per_s\n" + "\n".join(lines))
    return path


def test_the_load_is_the_hour_in_ten_minutes_after_a_lead(tmp_path: Path) -> None:
    path = trace(tmp_path)
    moments = live_load.moments(path, 600.0, seed=1)
    assert moments == sorted(moments) == live_load.moments(path, 600.0, seed=1)
    assert moments != live_load.moments(path, 600.0, seed=2)
    lead = [m for m in moments if m < live_load.LEAD]
    for count, mean in ((len(lead), 8.0 * 60), (len(moments) - len(lead), 2.0 * 600)):
        assert abs(count - mean) < 4 * math.sqrt(mean)  # a Poisson process, whatever the file says
    assert live_load.initial(moments, 2.5) == 4
    assert live_load.needed(moments, 30.0, 2.0) == pytest.approx(4.0, abs=1.3)
    assert max(live_load.moments(path, 60.0, seed=1)) < live_load.LEAD + 60


def sent(**more: Any) -> Sent:
    whole: dict[str, Any] = {"status": 200, "complete": True, "destination": "local"}
    times: dict[str, Any] = {"ttft_ms": 400.0, "seconds": 4.0, "pieces": 19}
    return Sent(0.0, "", **whole | times | more)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (sent(), True),
        (sent(ttft_ms=2001.0), False),
        (sent(seconds=19.0), False),  # 1.03 s a token
        (sent(complete=False), False),
        (sent(status=429), False),
        (sent(ttft_ms=None), False),
    ],
)
def test_who_keeps_the_objective(answer: Sent, kept: bool) -> None:
    assert live_report.attains(answer, ttft=2.0, itl=1.0) is kept


def test_a_row_adds_up_both_sides() -> None:
    answers = [sent(), sent(destination="cloud"), sent(status=0, complete=False, destination="")]
    row = live_report.row("hpa", answers, kept=2, seconds=1800.0, gpu=2.5, request=0.25)
    assert (row["requests"], row["failed"], row["spilled_share"]) == (3, 1, 0.3333)
    assert (row["gpu_usd"], row["cloud_usd"], row["total_usd"]) == (1.25, 0.25, 1.5)
    assert "66.67%" in live_report.table([row])


def pod(namespace: str, uid: str, ready: str = "True") -> dict[str, Any]:
    metadata = {"namespace": namespace, "uid": uid, "creationTimestamp": "1970-01-01T00:01:40Z"}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def test_a_replica_is_paid_from_its_order_to_its_end(tmp_path: Path) -> None:
    watch = live_watch.Watch(None, {"a": "hpa", "b": "keda"}, "")  # type: ignore[arg-type]
    watch.note(104.0, [pod("a", "1"), pod("a", "2", ready="False"), pod("c", "3")])
    watch.note(110.0, [pod("a", "1")])
    assert [(look.pods, look.ready) for look in watch.looks] == [
        ({"hpa": 2, "keda": 0}, {"hpa": 1, "keda": 0}),
        ({"hpa": 1, "keda": 0}, {"hpa": 1, "keda": 0}),
    ]
    assert live_watch.seconds(watch.lives["hpa"], 0.0, 1000.0) == 10.0 + 4.0
    assert live_watch.seconds(watch.lives["hpa"], 103.0, 108.0) == 5.0 + 1.0
    rows = [live_report.row(n, [sent()], 1, 14.0, 2.5, 0.0) for n in ("hpa", "keda")]
    live_report.chart(rows, watch.looks, 100.0, lambda _: 1.0, 12.0, tmp_path / "live.png")
    assert (tmp_path / "live.png").stat().st_size


def test_hpa_and_keda_keep_a_replica_at_the_same_work() -> None:
    metric = live_systems.hpa(5.6, 6)["spec"]["metrics"][0]["pods"]
    keda = live_systems.scaled_object("team", "http://prometheus", 5.6, 6)["spec"]
    assert metric["target"]["averageValue"] == keda["triggers"][0]["metadata"]["threshold"] == "5.6"
    assert "pollingInterval" not in keda  # KEDA's own defaults
    assert "cooldownPeriod" not in keda
