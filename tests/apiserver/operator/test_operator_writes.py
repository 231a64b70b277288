"""Who writes, and how little: the audit log of the API server is the witness."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from operator_world import World

from lab import audit

# Written by the API server of hack/cluster; another cluster's can be named.
AUDIT = Path(os.environ.get("OVERSPILL_AUDIT_LOG", audit.LOG))
IDLE_SECONDS = 20  # a whole minute is the story idle_minute
LEASE_SECONDS = 30  # within which another operator takes over


def writes(world: World, since: float, *, taken: bool = False) -> Counter[str]:
    """Count the operator's writes by verb and resource; with ``taken`` not those refused.

    :param since: seconds since the epoch.
    """
    if not AUDIT.exists():
        pytest.fail(f"{AUDIT} is not there: these tests need the local cluster", pytrace=False)
    found: Counter[str] = Counter()
    for entry in audit.writes(world.user, since, AUDIT):
        if not (taken and entry["responseStatus"]["code"] >= 300):
            ref = entry["objectRef"]
            found[f"{entry['verb']} {ref['resource']}/{ref.get('subresource', '')}"] += 1
    return found


def test_an_idle_operator_writes_leases_and_nothing_else(world: World) -> None:
    world.start()
    world.apply("none", scaling={"minReplicas": 0})
    world.apply("full")
    world.settled("none")
    world.settled("full")
    world.eventually("full", lambda: world.condition("CapacityAvailable", "full")[0] == "False")
    time.sleep(35)  # what is written at most every 30 s has been written
    since = time.time()
    time.sleep(IDLE_SECONDS)
    found = writes(world, since)
    passed = time.time() - since  # which can be more on a busy machine
    assert set(found) == {"update leases/"}
    assert found["update leases/"] <= passed / 3


def test_a_new_service_is_written_once(world: World) -> None:
    operator = world.start()
    world.eventually("it leads", lambda: operator.leads)
    # The first status is the last one when what it says of Prometheus is known before.
    world.eventually(
        "it misses Prometheus", lambda: "prometheus unavailable" in operator.log.read_text()
    )
    since = time.time()
    world.apply(scaling={"minReplicas": 0})
    world.settled()
    world.eventually("its status", lambda: world.condition("Ready")[0] == "True")
    time.sleep(8)  # beyond the autoscaler's next look at all services
    found = writes(world, since, taken=True)
    print(f"writes of a new service: {dict(found)}")
    # A count that the autoscaler did not change is not to be given up (docs/adr/0002).
    assert {k: n for k, n in found.items() if "leases" not in k and "events" not in k} == {
        "patch serviceaccounts/": 1,
        "patch networkpolicies/": 1,
        "patch services/": 1,
        "patch poddisruptionbudgets/": 1,
        "patch deployments/": 1,
        "patch deployments/scale": 1,
        "patch inferenceservices/status": 1,
    }


def test_of_two_operators_one_acts_and_the_other_takes_over(world: World) -> None:
    first = world.start("first")
    world.eventually("the first leads", lambda: first.leads)
    second = world.start("second")
    since = time.time()
    world.apply(scaling={"minReplicas": 0})
    world.settled()
    assert first.leads
    assert not second.leads
    # One creation of each child: the second wrote nothing.
    assert writes(world, since, taken=True)["patch services/"] == 1
    assert "applied" not in second.log.read_text()
    first.kill()
    world.eventually("the second leads", lambda: second.leads, LEASE_SECONDS)
    world.apply(scaling={"minReplicas": 0}, rollout={"drain": "77s"})
    world.eventually("it acts", lambda: "77" in str(world.get("deployment")))


def test_a_leader_that_slept_through_its_lease_writes_nothing(world: World) -> None:
    stale = world.start("stale")
    world.eventually("it leads", lambda: stale.leads)
    world.apply(scaling={"minReplicas": 0})
    world.settled()
    stale.process.send_signal(signal.SIGSTOP)
    applied = stale.log.read_text().count('"applied"')
    fresh = world.start("fresh")
    world.eventually("the fresh one leads", lambda: fresh.leads, LEASE_SECONDS)
    world.apply(scaling={"minReplicas": 0}, rollout={"drain": "77s"})
    world.eventually("it acts", lambda: "77" in str(world.get("deployment")))
    stale.process.send_signal(signal.SIGCONT)
    world.apply(scaling={"minReplicas": 0}, rollout={"drain": "78s"})
    world.eventually("it acts again", lambda: "78" in str(world.get("deployment")))
    world.eventually("the stale one looks at the lease", lambda: not stale.leads)
    assert fresh.leads
    assert stale.log.read_text().count('"applied"') == applied


def test_an_operator_that_ends_gives_the_lease_back(world: World) -> None:
    first = world.start("first")
    world.eventually("the first leads", lambda: first.leads)
    second = world.start("second")
    first.stop()
    world.eventually("the second leads", lambda: second.leads, 10)
