"""What a pass over many services costs the operator, where each weighs replicas against the cloud.

    python3 bench/decisions.py [--services 1000] [--passes 40]

The operator's own loop, its poll of Prometheus and its passes, on a virtual clock. Each service has
a load of its own that wavers and changes every half an hour or so. What the gateways stream is left
out. A pass is measured in CPU time, so that what else runs on the machine does not count.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from typing import cast

from prometheus_client import CollectorRegistry

from overspill import logs
from overspill.api.provider import Price
from overspill.api.service import InferenceService
from overspill.autoscaler.loop import Autoscaler, ScaleWriter
from overspill.autoscaler.meter import Meter
from overspill.autoscaler.offers import Offer
from overspill.autoscaler.signals import Replicas
from overspill.ledger.prices import Rates
from overspill.prometheus.queries import SIGNALS, SUMS
from overspill.prometheus.samples import Samples

INTERVAL = 5.0  # seconds between two passes, as in the operator
WARM_UP = 60  # passes, five minutes: the first have little to weigh
REGIME = 1800.0  # mean seconds between two changes of a load
RESIDENCE, SLOTS = 4.0, 8  # seconds of a request in a replica, requests at the same time
PRICE = Price.model_validate({"inputPerMTok": "1.75", "outputPerMTok": "14"})
OFFER = Offer(8.0, (Rates.of(PRICE),), 120.0)  # a replica pays when it is a third busy
TOKENS = {"prompt_tokens": 500.0, "completion_tokens": 200.0}


class Load:
    """Prometheus, with what one simulated load per service would show there."""

    def __init__(self, keys: list[str]) -> None:
        self._rng = random.Random(0)
        self._names = {query: name for name, query in (SIGNALS | SUMS).items()}
        self._means = {key: self._mean() for key in keys}
        self.rates: dict[str, float] = {}

    def _mean(self) -> float:
        return self._rng.uniform(0.5, 8.0) * SLOTS / RESIDENCE

    def step(self) -> None:
        """Go on by one pass."""
        for key, mean in self._means.items():
            if self._rng.random() < INTERVAL / REGIME:
                self._means[key] = mean = self._mean()
            self.rates[key] = max(0.0, self._rng.gauss(mean, (mean / 10.0) ** 0.5))

    async def query(self, promql: str) -> Samples:
        """Answer as ``PrometheusClient`` does."""
        name = self._names[promql]
        return {key: value for key, rate in self.rates.items() for value in _value(name, rate)}


def _value(name: str, rate: float) -> Iterator[float]:
    known = TOKENS | {
        "gateways": 2.0,
        "arrivals_rate": rate,
        "local_rate": rate,
        "in_flight": rate * RESIDENCE,
        "queued": 0.0,
        "spilled_in_flight": 0.0,
        "spilled_rate": 0.0,
        "residence": RESIDENCE,
        "ttft_p95": 0.5,
        "itl_p95": 0.03,
        "queue_wait_p95": 0.01,
    }
    if name in known:
        yield known[name]


class Clocked(Autoscaler):
    """The loop, with a clock that is set."""

    time = 1_700_000_000.0

    def now(self) -> float:
        """Return the time that is set."""
        return self.time


def measure(services: int, passes: int) -> list[float]:
    """Return the CPU milliseconds of each pass."""
    keys = [f"team-{i % 20}/service-{i}" for i in range(services)]
    load = Load(keys)
    scaler = Clocked(load, list, None, cast(ScaleWriter, None), meter=Meter(CollectorRegistry()))
    for key in keys:
        namespace, name = key.split("/")
        spec = {"model": {"uri": "hf://a/b"}, "scaling": {"maxReplicas": 12}}
        raw = {"metadata": {"namespace": namespace, "name": name}, "spec": spec}
        replicas = Replicas(placed=4, ready=4)  # no Deployment: nothing is written
        scaler.observe(key, InferenceService.parse(raw), replicas, SLOTS, offer=OFFER)
    return [_pass(scaler, load, keys) for _ in range(WARM_UP + passes)][WARM_UP:]


def _pass(scaler: Clocked, load: Load, keys: list[str]) -> float:
    Clocked.time += INTERVAL
    load.step()
    asyncio.run(_poll(scaler))
    started = time.process_time()
    for key in keys:
        scaler._step(key, cast(asyncio.TaskGroup, None))
    return (time.process_time() - started) * 1000


async def _poll(scaler: Clocked) -> None:
    await scaler._readings._poll_signals()
    await scaler._readings._poll_sums()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=40)
    chosen = parser.parse_args()
    logs.configure("warning")
    spent = measure(chosen.services, chosen.passes)
    deciles = statistics.quantiles(spent, n=20)
    print(
        f"{chosen.services} services, CPU ms of a pass: median {statistics.median(spent):.0f}, "
        f"p95 {deciles[-1]:.0f}, most {max(spent):.0f}"
    )


if __name__ == "__main__":
    main()
