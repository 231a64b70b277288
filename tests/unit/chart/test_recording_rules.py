"""The chart's recording rules, evaluated by Prometheus' own promtool, and what is read of them."""

import shutil
from pathlib import Path
from typing import Any

import yaml
from test_rules import FILES, needs_promtool, promtool

from overspill.api import metrics
from overspill.prometheus.queries import MISSED, RECORDED_SIGNALS, SIGNALS_EVERY

CHAT = 'service_namespace="team-a",service_name="chat"'
SERVED = f'{CHAT},destination="local",reason="",code="200"'
BUCKETS = f'{metrics.TTFT}_bucket{{{CHAT},instance="g1",destination="local",le='

# Every 5 s for 3 minutes; `_` is a scrape that failed, "stale" a target that went away.
PODS = {
    f'{metrics.READY_REPLICAS}{{{CHAT},instance="g1",job="a"}}': "1x36",
    f'{metrics.READY_REPLICAS}{{{CHAT},instance="g1",job="b"}}': "1x36",
    f'{metrics.READY_REPLICAS}{{{CHAT},instance="g2",job="a"}}': "1x36",
    f'{metrics.READY_REPLICAS}{{{CHAT},instance="gone",job="a"}}': "1x9 stale",
    f'{metrics.READY_REPLICAS}{{{CHAT},instance="unseen",job="a"}}': "1x9 _x27",
    # Started again after 150 s.
    f'{metrics.REQUESTS}{{{SERVED},instance="g1"}}': "0+10x30 10+10x5",
    f'{metrics.REQUESTS}{{{SERVED},instance="g2"}}': "0+10x36",
    f'{BUCKETS}"0.25"}}': "0+5x36",
    f'{BUCKETS}"+Inf"}}': "0+5x36",
    f'{metrics.LLAMACPP_RUNNING}{{{CHAT},instance="e1"}}': "3x36",
    'own_running{service_namespace="team-b",service_name="own",instance="e2"}': "3x36",
}
EXPECTED = {"gateways": 2.0, "local_rate": 4.0, "ttft_p95": 0.95 * 0.25, "engine_running": 3.0}

# A Prometheus pair whose copies are both seen; then nothing is recorded any more.
RECORDED = {
    f'service:overspill_gateways:all{{{CHAT},prometheus="one"}}': "2x3 _x9",
    f'service:overspill_gateways:all{{{CHAT},prometheus="two"}}': "2x3 _x9",
}
LAST = 3 * SIGNALS_EVERY


def case(series: dict[str, str], asked: list[tuple[str, int, str, float | None]]) -> dict[str, Any]:
    """One test of promtool: what was scraped, and (query, seconds, labels, value or None)."""
    return {
        "interval": f"{SIGNALS_EVERY}s",
        "input_series": [{"series": name, "values": v} for name, v in series.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": f"{at}s",
                "exp_samples": [{"labels": labels, "value": value}] if value is not None else [],
            }
            for query, at, labels, value in asked
        ],
    }


@needs_promtool
def test_the_rules_record_each_pod_once_and_what_is_old_is_absent(tmp_path: Path) -> None:
    recorded = [
        (name, 180, f"{name}{{{CHAT}}}", value)
        for signal, value in EXPECTED.items()
        for name in [f"service:overspill_{signal}:all"]
    ]
    query, labels = RECORDED_SIGNALS["gateways"], f"{{{CHAT}}}"
    too_old = LAST + MISSED * SIGNALS_EVERY
    read = [(query, too_old - 1, labels, 2.0), (query, too_old, labels, None)]
    shutil.copy(FILES / "recording.yaml", tmp_path / "recording.yaml")
    tests = {
        "rule_files": ["recording.yaml"],
        "evaluation_interval": f"{SIGNALS_EVERY}s",
        "tests": [case(PODS, recorded), case(RECORDED, read)],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("check", "rules", "--lint-fatal", tmp_path / "recording.yaml")
    promtool("test", "rules", tmp_path / "tests.yaml")
