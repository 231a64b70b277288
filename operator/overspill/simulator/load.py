"""From a trace to the load of each tick, in replicas.

Windows know a mean and a variance only, so a tick's arrivals are drawn from a normal distribution
with both, cut at zero. Recorded requests are counted. Same seed, same load.
"""

import random
from collections.abc import Iterator

from overspill.simulator.fluid import Setting
from overspill.simulator.traces import Trace, TraceError

MAX_TICKS = 5_000_000  # two years of 15 s


def loads(trace: Trace, setting: Setting, scale: float = 1.0, seed: int = 0) -> list[float]:
    """Return the offered requests/s over one replica's capacity, by tick.

    :param scale: times the rates; the variance is scaled alike.
    :raises TraceError: it is shorter than a tick, or has more than ``MAX_TICKS``.
    """
    ticks = trace.duration / setting.tick
    if ticks > MAX_TICKS or (trace.windows and ticks < 1):
        raise TraceError(f"{ticks:.3g} ticks of {setting.tick:g} s: give 1 to {MAX_TICKS}")
    rates = _drawn(trace, setting.tick, scale, seed) if trace.windows else _counted(trace, setting)
    factor = 1.0 if trace.windows else scale
    return [factor * rate / setting.capacity for rate in rates]


def _drawn(trace: Trace, tick: float, scale: float, seed: int) -> Iterator[float]:
    generator = random.Random(seed)  # noqa: S311 (no secret)
    windows = iter(trace.windows)
    window = next(windows)
    for index in range(int(trace.duration / tick)):
        while index * tick >= window.start + window.length:
            window = next(windows)
        mean, variance = window.rate * scale * tick, window.variance * scale * tick
        yield max(0.0, generator.gauss(mean, variance**0.5)) / tick


def _counted(trace: Trace, setting: Setting) -> list[float]:
    counts = [0.0] * (int(trace.duration / setting.tick) + 1)
    for request in trace.requests:
        counts[int(request.time / setting.tick)] += 1 / setting.tick
    return counts
