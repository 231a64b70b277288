"""From a trace to single requests, as the discrete-event level needs them.

Recorded requests are scaled by leaving some out, or by copies that come a little later, so that
the course of the load stays as it was. Windows know moments only: their arrivals are a renewal
process with gamma-distributed gaps of that mean and variance, and tokens are drawn from
exponential distributions. Same seed, same requests.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from overspill.simulator.traces import Request, Trace, TraceError

SPREAD = 30.0  # seconds within which a copy follows its original
MAX_REQUESTS = 20_000_000


def arrivals(
    trace: Trace, scale: float, seed: int, tokens: tuple[float, float] = (1000.0, 200.0)
) -> list[Request]:
    """Return requests in the order of time.

    :param scale: times the recorded rates.
    :param tokens: mean of prompt and answer, for a trace that knows rates only.
    :raises TraceError: there are none, or more than ``MAX_REQUESTS``.
    """
    generator = random.Random(seed)  # noqa: S311 (no secret)
    expected = scale * (sum(w.rate * w.length for w in trace.windows) + len(trace.requests))
    if not 1 <= expected <= MAX_REQUESTS:
        raise TraceError(f"{expected:.3g} requests: give a slice and a scale of 1 to 20 million")
    if trace.windows:
        return list(_drawn(trace, scale, generator, tokens))
    return sorted(_scaled(trace, scale, generator), key=lambda r: r.time)


def _scaled(trace: Trace, scale: float, generator: random.Random) -> Iterator[Request]:
    for request in trace.requests:
        copies = int(scale) + (generator.random() < scale % 1)
        for copy in range(copies):
            later = generator.uniform(0.0, SPREAD) if copy else 0.0
            yield replace(request, time=request.time + later)


def _drawn(
    trace: Trace, scale: float, generator: random.Random, tokens: tuple[float, float]
) -> Iterator[Request]:
    prompt, answer = tokens
    for window in trace.windows:
        rate = window.rate * scale
        if rate <= 0.0:
            continue
        # The count's variance over its mean is the squared CV of the gaps; 0 is not known: Poisson.
        spread = window.variance / window.rate or 1.0
        time = window.start + generator.gammavariate(1 / spread, spread / rate)
        while time < window.start + window.length:
            yield Request(
                time, 1 + _exponential(generator, prompt), 1 + _exponential(generator, answer)
            )
            time += generator.gammavariate(1 / spread, spread / rate)


def _exponential(generator: random.Random, mean: float) -> int:
    return int(generator.expovariate(1 / mean))
