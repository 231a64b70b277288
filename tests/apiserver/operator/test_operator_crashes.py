"""An operator that dies after any of its writes: the next one ends where a lucky one would."""

import asyncio
import json
from typing import Any

import pytest
from operator_world import CHILDREN, World
from prometheus_client import CollectorRegistry

from overspill.autoscaler.health import ScalingHealth
from overspill.cluster import Cluster, Conflict, Fenced, Kind
from overspill.controller.announce import Announcer
from overspill.controller.catalog import Catalog, Key
from overspill.controller.metrics import Metrics
from overspill.controller.observe import Observer
from overspill.controller.reconcile import Reconciler
from overspill.controller.scaling import ScaleWriter
from overspill.controller.settings import Settings
from overspill.controller.views import Views

MOST_WRITES = 30
WRITTEN_BY_OTHERS = {"status", "resourceVersion", "uid", "creationTimestamp", "time", "generation"}


class Fixed:
    """An autoscaler that wants one count and knows nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def observe(self, *_: Any) -> None:
        pass

    def forget(self, _: str) -> None:
        pass

    def desired(self, _: str) -> int:
        return self.count

    def decisions(self, _: str) -> list[Any]:
        return []

    def health(self, _: str) -> ScalingHealth:
        return ScalingHealth(active=True, reason="Active")

    def traffic(self, _: str) -> None:
        return None

    def cost(self, _: str) -> None:
        return None

    def providers(self) -> dict[str, Any]:
        return {}


async def live(cluster: Cluster, world: World, name: str, count: int, writes: int) -> int:
    """Reconcile until nothing is due or the process dies; return the writes that it made."""
    made = 0

    def guard(verb: str, kind: Kind) -> None:
        nonlocal made
        if made == writes:
            raise Fenced(f"died before {verb} {kind.kind}")
        made += 1

    guarded = cluster.guarded(guard)
    settings = Settings(
        namespace=world.namespace,
        engine_image="registry.example/engine:1",
        engine_gpu_image="registry.example/gpu:1",
    )
    autoscaler: Any = Fixed(count)
    reconciler = Reconciler(
        guarded,
        Observer(cluster, autoscaler, Catalog(), (1, 37), Views()),
        autoscaler,
        ScaleWriter(guarded),
        Announcer(guarded, "me"),
        settings,
        Metrics(CollectorRegistry()),
    )
    quiet = 0
    while quiet < 3:  # the API server's controllers change a Deployment for a moment
        before = made
        try:
            await reconciler.reconcile(Key.service(world.namespace, name))
        except Fenced:
            return made
        except Conflict:
            continue
        quiet = quiet + 1 if made == before else 0
        await asyncio.sleep(0.05)
    return made


def essence(value: Any) -> Any:
    """An object without what differs by chance."""
    if isinstance(value, dict):
        kept = {k: essence(v) for k, v in value.items() if k not in WRITTEN_BY_OTHERS}
        if "managedFields" in kept:
            ours = [e for e in kept["managedFields"] if e["manager"].startswith("overspill")]
            kept["managedFields"] = sorted(ours, key=lambda e: e["manager"])
        return kept
    if isinstance(value, list):
        return [essence(v) for v in value]
    return value


def children(world: World, name: str) -> Any:
    found = {}
    for kind in CHILDREN.values():
        text = world.kube.kubectl(
            "get", kind, f"{name}-engine", "-n", world.namespace, "-o", "json",
            "--show-managed-fields",
        )  # fmt: skip
        uid = world.get("infsvc", name)["metadata"]["uid"]
        found[kind] = essence(json.loads(text.replace(uid, "UID").replace(name, "NAME")))
        # The API server gives each Service and each revision a number of its own.
        found[kind]["spec"] = {
            k: v for k, v in found[kind].get("spec", {}).items() if not k.startswith("clusterIP")
        }
        found[kind]["metadata"].pop("annotations", None)
    return found


def bring_up(world: World, name: str, count: int, writes: int = MOST_WRITES) -> int:
    async def run() -> int:
        config = str(world.folder / "kubeconfig")
        async with Cluster.connect(kubeconfig=config) as cluster:
            return await live(cluster, world, name, count, writes)

    return asyncio.run(run())


@pytest.mark.parametrize(("count", "least"), [(0, 7), (1, 8)])
def test_a_crash_after_any_write_changes_nothing_in_the_end(
    world: World, count: int, least: int
) -> None:
    scaling = {"minReplicas": count}
    world.apply("lucky", scaling=scaling)
    total = bring_up(world, "lucky", count)
    assert least <= total < MOST_WRITES
    expected = children(world, "lucky")
    assert expected["deployments"]["spec"]["replicas"] == count
    for writes in range(total):
        name = f"crash{writes}x"
        world.apply(name, scaling=scaling)
        # The API server's controllers decide how many it takes; the first ones are always made.
        made = bring_up(world, name, count, writes)
        assert made == writes or least <= made < writes
        bring_up(world, name, count)
        assert children(world, name) == expected, f"died after {writes} writes"
    created = [
        e for e in world.kube.list("events", world.namespace) if e["reason"] == "SuccessfulCreate"
    ]
    assert len(created) == count * (total + 1)
