"""Row 25: an API server that fails 30 % of all calls: no restart, fewer calls, then all is well."""

import random
import time
from collections import Counter
from itertools import cycle

from faulty_world import FaultyWorld, figure, length
from proxy import Answer, Call, Faults, Proxy

CONVERGED_SECONDS = 60
SHARE = 0.3
# Seconds at the begin and at the end that are compared: longer than the 15 s after which a call
# without an answer is given up, since those make all services wait, and call again together.
WINDOW = 30
BUSY = {"Retry-After": "1"}
ANSWERS = {
    "429": Answer(429, BUSY),
    "500": Answer(500),
    "timeout": Answer(0),
    "answer lost": Answer(0, after=True),  # the write is done, and nobody hears of it
    "500 after the write": Answer(500, after=True),
    "409": Answer(409),
}


class FailingCalls(Faults):
    """A share of all calls fails in one way or another."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kinds = cycle(ANSWERS)  # so that each comes
        self.counts: Counter[str] = Counter()

    def answers(self, call: Call) -> Answer | None:
        if self.random.random() >= SHARE:
            return None
        kind = next(self.kinds)
        if call.method != "GET" and "409" not in self.counts:
            kind = "409"  # only a write can meet one
        elif kind == "409" and call.method == "GET":
            kind = "500"
        self.counts[kind] += 1
        return ANSWERS[kind]


def rate(proxy: Proxy, since: float, until: float) -> float:
    """Reconciles begun per second: each reads its object first. Leases are renewed all the time."""
    begun = [c for c in proxy.since(since) if c.at < until and "/inferenceservices/" in c.path]
    return len([c for c in begun if c.method == "GET"]) / (until - since)


def test_an_api_server_that_fails_a_third_of_all_calls(faulty: FaultyWorld) -> None:
    operator, proxy = faulty.start()
    faulty.lead(operator)
    names = [f"chat{i}" for i in range(length(10, 50))]
    for name in names:
        faulty.edit(name, 1)
    faulty.world.eventually("all are up", lambda: faulty.settled(1, names), 60)
    proxy.faults = failing = FailingCalls(seed=25)
    begun, seconds = time.monotonic(), length(90, 600)
    for name in names[::2]:
        faulty.edit(name, 2)
    for name in names[1::2]:  # and new ones
        faulty.world.kube.delete("infsvc", name, faulty.world.namespace, "--wait=false")
        faulty.edit(name, 2)
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    ended = time.monotonic()
    first, last = rate(proxy, begun, begun + WINDOW), rate(proxy, ended - WINDOW, ended)
    proxy.faults = Faults()
    faulty.world.eventually("all are as asked for", lambda: faulty.settled(2, names),
                            CONVERGED_SECONDS)  # fmt: skip
    took = time.monotonic() - ended
    assert operator.process.poll() is None
    assert len(failing.counts) == len(ANSWERS)
    assert last < first
    figure(
        "25", f"30 % of all calls for {seconds} s: {dict(failing.counts)}",
        f"no restart; reconciles/s {first:.2f} in the first {WINDOW} s, {last:.2f} in the last; "
        f"{len(names)} services as asked for {took:.0f} s after the end",
    )  # fmt: skip
