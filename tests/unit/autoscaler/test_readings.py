"""What is asked of Prometheus, and what is told while it is away."""

import pytest
import structlog
from structlog.testing import LogCapture

from overspill.autoscaler.health import judge
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
from overspill.prometheus.samples import Samples, parse


class Source:
    """Answers, or fails with ``problem``."""

    def __init__(self) -> None:
        self.problem, self.found = "", Samples()

    async def query(self, promql: str) -> Samples:
        if self.problem:
            raise PrometheusUnavailable(self.problem, retry=True)
        return self.found


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
LABELS = {"service_namespace": "team-a", "service_name": "chat"}


@pytest.mark.parametrize(
    ("problem", "value", "shown"),
    [
        ("away", "1", "PrometheusUnavailable"),
        ("", None, "NoMetrics"),
        ("", "NaN", "NoMetrics"),
        ("", "+Inf", "NoMetrics"),
    ],
)
async def test_a_fault_is_shown_by_the_next_round_and_forgotten_by_the_next(
    problem: str, value: str | None, shown: str
) -> None:
    """Whatever was read before: three rounds are the age of readings, not of what is shown."""
    source = Source()
    readings = Readings(source, 1.0, clock=lambda: 0.0)

    async def told(problem: str, value: str | None) -> str:
        source.problem = problem
        source.found = parse([{"metric": LABELS, "value": [0, value]}] if value else [])
        await readings._poll_signals()
        complete = readings.signals(KEY).complete
        return judge(
            outage=readings.outage, asked=True, complete=complete, known=True, age=0, replicas=1
        ).reason

    assert await told("", "1") == "Active"
    assert await told(problem, value) == shown
    assert await told("", "1") == "Active"


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
