"""Row 22: an operator that dies after any of its writes: the next one ends where a lucky one would.

Each case brings a service up, changes something, and lets operators die after each write that the
change calls for, one service for each point. The end is compared with that of a service whose
operator did not die: children with the fields that are ours, and what the status says. Not
compared are events: one that a death swallowed is not written by the next operator.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
from crash_world import MODEL, MOST_WRITES, Subject, Wish
from operator_world import Object, World

from overspill.autoscaler.gateways import ProviderReport
from overspill.cluster import Cluster, Kind
from overspill.cluster.kinds import (
    DEPLOYMENT,
    NETWORK_POLICY,
    PDB,
    SERVICE,
    SERVICE_ACCOUNT,
)

ZERO = {"scaling": {"minReplicas": 0, "maxReplicas": 3}}
POD = {"pod": {"annotations": {"example.com/a": "1", "example.com/b": "2"}}}
RUNTIME = {"image": "registry.example/mine:1", "args": ["--model", "$(MODEL_PATH)"]}
REFUSED = {"pod": {"affinity": {"nodeAffinity": {"nonsense": 1}}}}
SPILL = {"spillover": {"providers": [{"name": "nobody", "model": "gpt"}]}}
KEY_IS_BAD = ProviderReport(ready=False, reason="KeyRefused", message="401")
KEY_IS_GOOD = ProviderReport(ready=True, reason="Ready")


def wish(spec: Object | None = None, **more: object) -> Wish:
    return Wish({**ZERO, **(spec or {})}, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """A change, and the fewest writes that it takes."""

    before: Wish
    after: Wish
    least: int
    disturbed: tuple[Kind, Object | None] | None = None  # by somebody: a patch, or None: deleted


CASES = {
    "options": Case(wish(), wish({"engine": {"batching": {"maxSequences": 8}}}), 2),
    "another model": Case(wish(), wish({"model": {**MODEL, "servedName": "other"}}), 2),
    "a new operator's image": Case(wish(), wish(engine_image="registry.example/engine:2"), 1),
    "a field is deleted": Case(wish(POD), wish(), 2),
    "one of two keys is deleted": Case(
        wish(POD), wish({"pod": {"annotations": {"example.com/a": "1"}}}), 2
    ),
    "up": Case(wish(), wish(count=2), 2),
    "down": Case(wish(count=2), wish(), 2),
    "another runtime": Case(wish(), wish(runtime=RUNTIME), 2),
    "back to our engine": Case(wish(runtime=RUNTIME), wish(), 2),
    "the runtime's own change": Case(
        wish(runtime=RUNTIME), wish(runtime={**RUNTIME, "image": "registry.example/mine:2"}), 1
    ),
    "spillover": Case(wish(), wish(SPILL), 2),
    "no spillover": Case(wish(SPILL), wish(), 2),
    "refused": Case(wish(), wish(REFUSED), 2),
    "no longer refused": Case(wish(REFUSED), wish(), 5),
    "an engine that lacks an option": Case(
        wish(), wish({"engine": {"runtime": "llamacpp", "quantization": "int4"}}), 2
    ),
    # Not from zero: whether a pod without a place was seen is chance, and is said for 30 s.
    "the count drifts": Case(
        wish(count=2), wish(count=2), 1, (DEPLOYMENT, {"spec": {"replicas": 3}})
    ),
    "a provider's key is refused": Case(wish(provider=KEY_IS_GOOD), wish(provider=KEY_IS_BAD), 2),
    "a provider's key is good again": Case(
        wish(provider=KEY_IS_BAD), wish(provider=KEY_IS_GOOD), 2
    ),
} | {
    f"{kind.kind} {'is deleted' if patch is None else 'drifts'}": Case(
        wish(), wish(), 1, (kind, patch)
    )
    for kind, drifted in {
        SERVICE_ACCOUNT: {"automountServiceAccountToken": True},
        NETWORK_POLICY: {"spec": {"egress": [{}]}},
        SERVICE: {"spec": {"ports": [{"port": 8000, "targetPort": 81}]}},
        PDB: {"spec": {"maxUnavailable": 0}},
        DEPLOYMENT: {"spec": {"template": {"spec": {"enableServiceLinks": True}}}},
    }.items()
    for patch in (drifted, None)
}


@pytest.fixture
async def operator(world: World) -> AsyncIterator[Cluster]:
    """A connection with the operator's rights."""
    async with Cluster.connect(kubeconfig=str(world.folder / "kubeconfig")) as connected:
        yield connected


async def changed(subject: Subject, case: Case, writes: int) -> int:
    """Bring up, change, and die after so many writes; return those that were made."""
    await subject.ask(case.before)
    await subject.live(case.before)
    await subject.ask(case.after)
    if case.disturbed:
        await subject.disturb(*case.disturbed)
    return await subject.live(case.after, writes)


@pytest.mark.parametrize("name", CASES)
async def test_a_death_after_any_write_of_a_change_changes_nothing_in_the_end(
    name: str, world: World, cluster: Cluster, operator: Cluster
) -> None:
    case = CASES[name]
    subject = partial(Subject, cluster, operator, world.namespace)
    lucky = subject("lucky")
    total = await changed(lucky, case, MOST_WRITES)
    assert case.least <= total < MOST_WRITES
    expected = await lucky.end(case.after)
    assert expected["service"]["judged"]

    async def died(writes: int) -> None:
        unlucky = subject(f"unlucky{writes}x")
        # The API server's controllers decide how many it takes; the first ones are always made.
        made = await changed(unlucky, case, writes)
        assert made == writes or case.least <= made < writes
        await unlucky.live(case.after)
        assert await unlucky.end(case.after) == expected, f"died after {writes} writes"

    async with asyncio.TaskGroup() as group:
        for writes in range(total):
            group.create_task(died(writes))


@pytest.mark.parametrize(("count", "least"), [(0, 7), (1, 8)])
async def test_a_death_after_any_write_of_the_first_ones_changes_nothing_in_the_end(
    world: World, cluster: Cluster, operator: Cluster, count: int, least: int
) -> None:
    wanted = wish(count=count)
    subject = partial(Subject, cluster, operator, world.namespace)
    lucky = subject("lucky")
    await lucky.ask(wanted)
    total = await lucky.live(wanted)
    assert least <= total < MOST_WRITES
    expected = await lucky.end(wanted)
    assert expected["Deployment"]["spec"]["replicas"] == count

    async def died(writes: int) -> None:
        unlucky = subject(f"unlucky{writes}x")
        await unlucky.ask(wanted)
        made = await unlucky.live(wanted, writes)
        assert made == writes or least <= made < writes
        await unlucky.live(wanted)
        assert await unlucky.end(wanted) == expected, f"died after {writes} writes"

    async with asyncio.TaskGroup() as group:
        for writes in range(total):
            group.create_task(died(writes))
    # The API server's controllers write their events some time after what they did.
    pods = count * (total + 1)
    world.eventually("an event of each pod", lambda: pods_created(world) >= pods)
    assert pods_created(world) == pods


def pods_created(world: World) -> int:
    """Pods that Deployments got, by the events."""
    events = world.kube.list("events", world.namespace)
    return sum(e["reason"] == "SuccessfulCreate" for e in events)
