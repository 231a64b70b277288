"""The ledger's record at a real API server, with the very rights that the chart gives."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ledger_world import DOLLAR, SERVICE, Mailbox, running, until, wanting
from operator_world import RELEASE, World

from overspill.api.budget import Window
from overspill.cluster import Cluster, Forbidden
from overspill.cluster.kinds import CONFIG_MAP
from overspill.controller.treasurer import Treasurer
from overspill.ledger.treasury import RECORD, Treasury

NAME = f"{RELEASE}-ledger"
GRANT = DOLLAR // 10


@asynccontextmanager
async def operator(world: World) -> AsyncIterator[Cluster]:
    """A connection as the operator's service account."""
    async with Cluster.connect(kubeconfig=str(world.folder / "kubeconfig")) as cluster:
        yield cluster


async def make(cluster: Cluster, namespace: str) -> None:
    """Make the record, as the chart does."""
    metadata = {"name": NAME, "namespace": namespace, "labels": {"made-by": "the-chart"}}
    await cluster.create(
        CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    )


async def charged(cluster: Cluster, namespace: str) -> int:
    live = await cluster.get(CONFIG_MAP, namespace, NAME)
    assert live["metadata"]["labels"] == {"made-by": "the-chart"}
    treasury = Treasury.read((live.get("data") or {}).get(RECORD, ""))
    return treasury.pot(SERVICE, Window.DAY, time.time()).charged


async def test_money_is_written_down_and_another_operator_goes_on(
    world: World, cluster: Cluster
) -> None:
    await make(cluster, world.namespace)
    async with operator(world) as own, Mailbox().serving() as gateway:
        for holder in ("g1", "g2"):
            treasurer = Treasurer(own, world.namespace, NAME, None)
            async with running(treasurer):
                before = len(gateway.got)
                treasurer.hear(gateway.address, wanting(GRANT, holder=holder))
                await until(lambda before=before: len(gateway.got) > before)
    assert await charged(cluster, world.namespace) == 2 * GRANT


async def test_of_two_operators_the_stale_one_grants_nothing_of_what_the_other_gave(
    world: World, cluster: Cluster
) -> None:
    await make(cluster, world.namespace)
    async with operator(world) as own, Mailbox().serving() as gateway:
        old = Treasurer(own, world.namespace, NAME, None)
        new = Treasurer(own, world.namespace, NAME, None)
        async with running(old, new):
            await until(lambda: not old.problem and not new.problem)
            new.hear(gateway.address, wanting(8 * GRANT, holder="g1"))
            await until(lambda: len(gateway.got) == 1)
            old.hear(gateway.address, wanting(8 * GRANT, holder="g2"))
            old.hear(gateway.address, wanting(8 * GRANT, holder="g2"))
            await until(lambda: old._treasury.revision >= 1)
            old.hear(gateway.address, wanting(8 * GRANT, holder="g2"))
            await until(lambda: len(gateway.got) == 2)
    assert gateway.got[-1].grants[0].allowed == 0
    assert await charged(cluster, world.namespace) == 8 * GRANT


async def test_a_record_that_is_gone_is_not_made_anew(world: World, cluster: Cluster) -> None:
    async with operator(world) as own, Mailbox().serving() as gateway:
        treasurer = Treasurer(own, world.namespace, NAME, None)
        async with running(treasurer):
            treasurer.hear(gateway.address, wanting(GRANT))
            await until(lambda: "is gone" in treasurer.problem)
            await make(cluster, world.namespace)
            await until(lambda: gateway.got != [])


async def test_the_operator_may_touch_no_other_configmap(world: World, cluster: Cluster) -> None:
    metadata = {"name": "another", "namespace": world.namespace}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await cluster.create(CONFIG_MAP, other)
    async with operator(world) as own:
        for attempt in (
            own.get(CONFIG_MAP, world.namespace, "another"),
            own.replace(CONFIG_MAP, other),
            own.list(CONFIG_MAP, world.namespace),
            own.create(CONFIG_MAP, {**other, "metadata": {**metadata, "name": "third"}}),
        ):
            with pytest.raises(Forbidden):
                await attempt
