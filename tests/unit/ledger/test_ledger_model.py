"""Every interleaving of a few steps: reserve, send, settle, report, loss, expiry, crashes.

Two gateways and one budget for three requests of which each costs 1 or 2. From every state every
step is taken; states that are equal are visited once. What must hold is checked in all of them.
"""

import copy
import os
from collections.abc import Callable, Iterator

import pytest
from release import CLOUD, HOUR, Release

from overspill.ledger.treasury import LIFETIME

DEPTH = int(os.environ.get("OVERSPILL_DEPTH", "6"))  # steps
REQUESTS = 4  # that are ever wanted; more make the states many and no new ones
Step = Callable[[Release], object]


def steps(release: Release) -> Iterator[tuple[str, Step]]:
    """Yield all steps that can be taken next."""
    for i, gateway in enumerate(release.gateways):
        if gateway.waiting:
            yield f"send {i}", lambda r, i=i: r.try_to_send(r.gateways[i])
        elif release.wanted < REQUESTS:  # type: ignore[attr-defined]
            yield f"want {i}", lambda r, i=i: want(r, i)
        for cost in (0, 2) if gateway.sent else ():
            yield f"settle {i} {cost}", lambda r, i=i, c=cost: r.settle(r.gateways[i], 0, c)
        if len(release.up) < 2:
            yield f"state {i}", lambda r, i=i: r.state(r.gateways[i])
        if gateway.sent or gateway.waiting:
            yield f"crash {i}", lambda r, i=i: r.crash(i)
    for j in range(len(release.up)):
        yield f"hear {j}", lambda r, j=j: r.hear(j)
        yield f"lose {j}", lambda r, j=j: r.up.pop(j)
        yield f"die before the write {j}", lambda r, j=j: r.hear(j, written=False)
        yield f"die after the write {j}", lambda r, j=j: r.hear(j, answered=False)
    for j in range(len(release.down)):
        yield f"deliver {j}", lambda r, j=j: r.deliver(j)
        yield f"deliver twice {j}", lambda r, j=j: r.deliver(j, again=True)
    if release.down or any(g.sent for g in release.gateways):
        yield "expire", expire


def want(release: Release, index: int) -> None:
    release.wanted += 1  # type: ignore[attr-defined]
    release.want(release.gateways[index], 2)


def expire(release: Release) -> None:
    release.now += LIFETIME + 1


def fingerprint(release: Release) -> str:
    """Return what tells two states apart; names of processes do not matter to what follows."""
    gateways = [
        (g.purse.holder, g.waiting is not None, len(g.sent), _pots(g.purse))
        for g in release.gateways
    ]
    return repr(
        (release.now, gateways, release.record, release.treasury._pots, release.up, release.down,
         sorted(release.bill.items()))
    )  # fmt: skip


def _pots(purse: object) -> list[str]:
    pots = purse._pots.values()  # type: ignore[attr-defined]
    return [f"{p.seen} {p.allowed} {p.spent} {p.reserved} {p.until} {p.known}" for p in pots]


def fresh() -> Release:
    """Nothing was ever wanted."""
    release = Release({CLOUD: {HOUR: 5}})
    release.wanted = 0  # type: ignore[attr-defined]
    return release


def granted() -> Release:
    """Both gateways hold money for one request each; none is left for a third."""
    release = fresh()
    for index, gateway in enumerate(release.gateways):
        want(release, index)
        release.exchange(gateway)
    return release


@pytest.mark.parametrize(("start", "depth", "most"), [(fresh, DEPTH, 2), (granted, DEPTH - 2, 4)])
def test_no_interleaving_passes_the_budget(
    start: Callable[[], Release], depth: int, most: int
) -> None:
    first = start()
    frontier, seen, sent = [first], {fingerprint(first)}, 0
    for _ in range(depth):
        following = []
        for release in frontier:
            for _, step in steps(release):
                shared = (release.limits, *release.up, *release.down)  # nobody changes these
                after = copy.deepcopy(release, {id(part): part for part in shared})
                step(after)
                after.check()
                sent = max(sent, sum(after.bill.values()))
                mark = fingerprint(after)
                if mark not in seen:
                    seen.add(mark)
                    following.append(after)
        frontier = following
    print(len(seen), "states, all checked")
    assert sent == most, "a model in which nothing is sent proves nothing"
