"""What is asked of Prometheus, and what is told while it is away."""

import structlog
from structlog.testing import LogCapture

from overspill.autoscaler.readings import Readings
from overspill.prometheus.client import PrometheusUnavailable
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
