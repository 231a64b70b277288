"""What is written, and how often, when somebody else writes at the same time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import world
from prometheus_client import CollectorRegistry

from overspill.api.names import AUTOSCALER_MANAGER
from overspill.cluster import Conflict, Kind, NotFound
from overspill.controller import drift, render
from overspill.controller.catalog import Key
from overspill.controller.decide import Plan, decide
from overspill.controller.facts import Facts
from overspill.controller.metrics import Metrics
from overspill.controller.reconcile import Reconciler
from overspill.controller.scaling import ScaleWriter

Object = dict[str, Any]
KEY = Key.service("team-a", "chat")
CHANGED = world.service(engine={"batching": {"maxSequences": 8}})


class Store:
    """The children of one service, as an API server keeps them: versions and managers count."""

    def __init__(self, children: dict[str, Object]) -> None:
        self.children = copy.deepcopy(children)
        self.tried: list[str] = []  # kinds of the applies
        self.applied: list[str] = []  # of those that were taken
        self.before: Callable[[str], None] = lambda kind: None

    async def get(self, kind: Kind, *_: str) -> Object:
        if kind.kind not in self.children:
            raise NotFound(kind.kind)
        return copy.deepcopy(self.children[kind.kind])

    async def apply(
        self, kind: Kind, obj: Object, *, manager: str, force: bool = True, subresource: str = ""
    ) -> Object:
        self.tried.append(kind.kind)
        self.before(kind.kind)
        live = self.children.get(kind.kind)
        version = obj["metadata"].get("resourceVersion")
        if version and (live is None or version != live["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified")
        scaled = live is not None and drift.owns_replicas(live, AUTOSCALER_MANAGER, "scale")
        count = obj["spec"].get("replicas") if live and "spec" in obj else None
        if live and scaled and not force and count not in (None, live["spec"]["replicas"]):
            raise Conflict("Apply failed with 1 conflict: .spec.replicas")
        metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
        made = world.managed({**obj, "metadata": metadata}, scale=scaled)
        if live and kind.kind == "Deployment":
            made["spec"] = {"replicas": live["spec"]["replicas"], **made["spec"]}
        self.children[kind.kind] = made
        self.bump(kind.kind, live)
        self.applied.append(kind.kind)
        return copy.deepcopy(made)

    def bump(self, kind: str, before: Object | None = None) -> None:
        """Give an object another version, as any write does."""
        metadata = self.children[kind]["metadata"]
        old = before["metadata"]["resourceVersion"] if before else metadata["resourceVersion"]
        metadata["resourceVersion"] = str(int(old) + 1)


def settled(*drifted: str) -> dict[str, Object]:
    """The children as they are after all was applied; some have lost a label since."""
    rendered = render.children(world.facts(), world.SETTINGS, replicas=None, unplaceable=0)
    children = {k: world.managed(o, scale=k == "Deployment") for k, o in rendered.items()}
    children["Deployment"]["spec"] = {"replicas": 3, **children["Deployment"]["spec"]}
    for kind in drifted:
        children[kind] = copy.deepcopy(children[kind])
        children[kind]["metadata"]["labels"].popitem()
    return children


class Harness:
    """A reconciler between the store and the facts that were read of it."""

    def __init__(self, store: Store) -> None:
        self.store, self.registry = store, CollectorRegistry()
        nothing: Any = None
        cluster: Any = store
        self.reconciler = Reconciler(
            cluster,
            nothing,
            nothing,
            ScaleWriter(cluster),
            nothing,
            world.SETTINGS,
            Metrics(self.registry),
        )

    async def write(self, facts: Facts) -> Facts:
        return await self.reconciler._children(KEY, facts)

    def conflicts(self, kind: str) -> float | None:
        return self.registry.get_sample_value("overspill_write_conflicts_total", {"kind": kind})


async def test_a_conflict_repeats_no_other_write() -> None:
    """The first two are applied, then the Deployment's controller has been faster than we."""
    read = settled("NetworkPolicy", "PodDisruptionBudget")
    harness = Harness(Store(read))
    harness.store.bump("Deployment")
    after = await harness.write(world.facts(CHANGED, children=read))
    others = ["NetworkPolicy", "PodDisruptionBudget"]
    assert harness.store.tried == [*others, "Deployment", "Deployment"]
    assert harness.store.applied == [*others, "Deployment"]
    assert decide(after, world.SETTINGS) == Plan()
    assert after.children == harness.store.children
    assert harness.conflicts("Deployment") == 1


@pytest.mark.parametrize("kind", ["ServiceAccount", "NetworkPolicy", "Service", "Deployment"])
async def test_any_child_that_changed_is_read_again(kind: str) -> None:
    read = settled(kind)
    harness = Harness(Store(read))
    harness.store.bump(kind)
    after = await harness.write(world.facts(children=read))
    assert harness.store.tried == [kind, kind]
    assert decide(after, world.SETTINGS) == Plan()
    assert harness.conflicts(kind) == 1


async def test_a_child_that_went_meanwhile_is_made_anew() -> None:
    read = settled("Service")
    harness = Harness(Store(read))
    del harness.store.children["Service"]
    after = await harness.write(world.facts(children=read))
    assert harness.store.applied == ["Service"]
    assert decide(after, world.SETTINGS) == Plan()


async def test_one_who_writes_as_often_as_we_do_holds_up_only_his_object() -> None:
    read = settled("NetworkPolicy", "Service")
    harness = Harness(Store(read))
    harness.store.before = lambda kind: harness.store.bump(kind) if kind == "Service" else None
    with pytest.raises(Conflict):
        await harness.write(world.facts(children=read))
    assert harness.store.applied == ["NetworkPolicy"]
    assert harness.conflicts("Service") == harness.store.tried.count("Service")


async def test_a_creation_that_comes_late_changes_no_count() -> None:
    """Another leader has made the Deployment meanwhile, and its count is the autoscaler's."""
    there = settled()
    harness = Harness(Store(there))
    read = {**there, "Deployment": None}
    after = await harness.write(world.facts(desired=1, children=read))
    assert harness.store.children["Deployment"]["spec"]["replicas"] == 3
    assert harness.store.applied == []
    assert decide(after, world.SETTINGS) == Plan()
