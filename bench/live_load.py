"""Ten minutes of load for bench/live.py, from a recorded trace: when each request is sent."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from overspill.simulator import traces
from overspill.simulator.arrivals import arrivals
from overspill.simulator.traces import Trace

TRACE = "servegen-m-large.csv"
BEGIN = 131 * 600.0  # seconds of the trace; an hour in which its rate goes up 2.4 x, down 3.9 x
SPEED = 6.0  # seconds of the trace in one of ours
SECONDS, LEAD = 600.0, 60.0  # that count, and that are served before
SCALE = 8.0 / 583.0  # of the rates: eight requests/s at the peak


def moments(path: Path, seconds: float, seed: int) -> list[float]:
    """Return when requests are sent, in seconds from the begin of the lead.

    Of 73 requests one is left, and so thin a sample of any process is nearly a Poisson process
    (Rényi's theorem): of the file's moments only the rates are used.

    :param path: of a trace that knows rates.
    :param seconds: that count, after the lead.
    :raises TraceError: the trace cannot be read, or ends before.
    """
    piece = traces.read(path).slice(BEGIN - LEAD * SPEED, BEGIN + seconds * SPEED)
    quick = [
        replace(w, start=w.start / SPEED, length=w.length / SPEED, variance=w.rate)
        for w in piece.windows
    ]
    return [request.time for request in arrivals(Trace(tuple(quick)), SCALE, seed)]


def needed(sent: Sequence[float], second: float, capacity: float, window: float = 20.0) -> float:
    """Return how many replicas the load of a moment keeps busy.

    :param sent: moments in seconds.
    :param capacity: requests/s that one replica answers.
    :param window: seconds around the moment over which the rate is taken.
    """
    near = sum(abs(moment - second) <= window / 2 for moment in sent)
    return near / window / capacity


def initial(sent: Sequence[float], capacity: float) -> int:
    """Return the replicas that the lead keeps busy, with which all begin."""
    lead = sum(moment < LEAD for moment in sent)
    return max(1, math.ceil(lead / LEAD / capacity))
