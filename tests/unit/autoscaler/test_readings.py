"""What is asked of Prometheus, and what is told while it is away."""

import pytest
import structlog
from structlog.testing import LogCapture

from overspill.autoscaler.readings import Readings
from overspill.prometheus.client import PrometheusUnavailable
from overspill.prometheus.queries import (
    RECORDED_SIGNALS,
    RECORDED_SUMS,
    SIGNALS,
    SUMS,
    OwnMetrics,
    signals,
)
from overspill.prometheus.samples import Samples


class Source:
    """Answers, or fails with ``problem``."""

    problem = ""

    async def query(self, promql: str) -> Samples:
        if self.problem:
            raise PrometheusUnavailable(self.problem, retry=True)
        return {}


async def test_unknown_costs_are_told_once_for_each_problem() -> None:
    source, told = Source(), LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[told])
    try:
        readings = Readings(source, 1.0, clock=lambda: 0.0)
        for source.problem in ("away", "away", "slow", "slow", "", "", "slow"):
            await readings._poll_sums()
    finally:
        structlog.configure(processors=before)
    assert [entry["problem"] for entry in told.entries] == ["away", "slow", "slow"]


KEY = "team-a/chat"
OWN = OwnMetrics("team-a", running="own_running")
ENGINES = {"engine_running": 7.0}


class Recording:
    """A Prometheus with rules: asked for a signal it gives 1, for what is recorded ``recorded``."""

    def __init__(self, recorded: dict[str, float]) -> None:
        self.recorded, self.asked = recorded, set[str]()
        self.names = {query: name for name, query in (signals(frozenset({OWN})) | SUMS).items()}
        recorded_signals = signals(frozenset({OWN}), recorded=True)
        self.records = {query: n for n, query in (recorded_signals | RECORDED_SUMS).items()}

    async def query(self, promql: str) -> Samples:
        if promql in self.names:
            self.asked.add(self.names[promql])
            return {KEY: 1.0}
        name = self.records[promql]
        return {KEY: self.recorded[name]} if name in self.recorded else {}


@pytest.mark.parametrize(
    ("recorded", "asked", "arrivals"),
    [
        (dict.fromkeys((*SIGNALS, *SUMS), 2.0), set(), 2.0),
        # One rule that fails is one signal that is missing.
        (ENGINES | {"gateways": 2.0, "own_input": 2.0}, set(), None),
        # The engine of a user's own is no sign of a rule: its names are asked for as they are.
        (ENGINES, {*SIGNALS, *SUMS}, 1.0),
        ({}, {*SIGNALS, *SUMS}, 1.0),
        ({"gateways": 2.0}, {*SUMS}, None),
    ],
    ids=["all", "some", "own engine only", "none", "no sums"],
)
async def test_what_is_recorded_is_read_and_the_rest_only_where_nothing_is(
    recorded: dict[str, float], asked: set[str], arrivals: float | None
) -> None:
    source = Recording(recorded)
    readings = Readings(source, 1.0, lambda: 0.0, lambda: frozenset({OWN}), recorded=True)
    await readings._poll_signals()
    await readings._poll_sums()
    assert source.asked == asked
    assert readings.fresh
    assert readings.signals(KEY).numbers().get("arrivals_rate") == arrivals
    assert readings.mix(KEY)["prompt_tokens"] == (1.0 if asked else recorded.get("prompt_tokens"))


async def test_without_rules_nobody_asks_for_what_they_record() -> None:
    source = Recording(dict.fromkeys(RECORDED_SIGNALS, 2.0))
    readings = Readings(source, 1.0, lambda: 0.0, lambda: frozenset({OWN}))
    await readings._poll_signals()
    assert readings.signals(KEY).arrivals_rate == 1.0
