"""Requests out of a trace: as many as the scale says, in order, the same for the same seed."""

import statistics
from itertools import pairwise

import pytest

from overspill.simulator.arrivals import SPREAD, arrivals
from overspill.simulator.traces import Request, Trace, TraceError, Window

RECORDED = Trace(requests=tuple(Request(float(t), 10 + t, 5, 3) for t in range(1000)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_recorded_requests_are_scaled(scale: float) -> None:
    requests = arrivals(RECORDED, scale, 0)
    assert len(requests) == pytest.approx(1000 * scale, rel=0.08)
    assert all(a.time <= b.time for a, b in pairwise(requests))
    assert all(0 <= r.time - (r.input_tokens - 10) <= SPREAD for r in requests)
    assert requests == arrivals(RECORDED, scale, 0)
    assert scale == 1.0 or requests != arrivals(RECORDED, scale, 1)


def test_windows_are_drawn_with_their_moments() -> None:
    """Variance per second over the rate is the squared CV of the gaps."""
    requests = arrivals(Trace(windows=(Window(0, 4000, 10, 40),)), 0.5, 0, (100.0, 20.0))
    gaps = [b.time - a.time for a, b in pairwise(requests)]
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.05)
    assert statistics.pvariance(gaps) / statistics.mean(gaps) ** 2 == pytest.approx(4, rel=0.15)
    assert statistics.mean(r.input_tokens for r in requests) == pytest.approx(100.5, rel=0.05)
    assert statistics.mean(r.output_tokens for r in requests) == pytest.approx(20.5, rel=0.05)


def test_silent_windows_and_bounds() -> None:
    trace = Trace(windows=(Window(0, 10, 0, 0), Window(10, 100, 5, 0)))
    assert min(r.time for r in arrivals(trace, 1.0, 0)) >= 10
    for scale in (0.0, 1e9):
        with pytest.raises(TraceError, match="requests: give a slice and a scale"):
            arrivals(trace, scale, 0)
