"""An audit marks what the watches did not tell, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from overspill.api.names import LABEL_MANAGED_BY, LABEL_SERVICE, MANAGED_BY
from overspill.cluster import Forbidden, Kind, NotFound
from overspill.cluster.kinds import (
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    POD,
    PVC,
    SERVICE,
)
from overspill.controller import audit as module
from overspill.controller.audit import Auditor
from overspill.controller.catalog import Catalog, Key
from overspill.controller.views import Views, version
from overspill.controller.worker import DirtyKeys

Object = dict[str, Any]
CHAT, OTHER = Key.service("ns", "chat"), Key.service("ns", "other")
OPENAI = Key.provider("ns", "openai")


def obj(name: str, rv: int, service: str = "", **spec: Any) -> Object:
    labels = {LABEL_SERVICE: service, LABEL_MANAGED_BY: MANAGED_BY} if service else {}
    metadata = {
        "namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(rv),
        "labels": labels,
    }  # fmt: skip
    return {"metadata": metadata, "spec": spec}


class Lists:
    """What the API server would list."""

    def __init__(self) -> None:
        providers = {"providers": [{"name": "openai"}]}
        other: Object = {"engine": {"runtime": "mine"}, "model": {"uri": "pvc://weights/a.gguf"}}
        self.objects: dict[Kind, list[Object]] = {
            INFERENCE_SERVICE: [obj("chat", 1, spillover=providers), obj("other", 2, **other)],
            INFERENCE_RUNTIME: [obj("mine", 10)],
            PVC: [obj("weights", 11), obj("of-somebody-else", 12)],
            INFERENCE_PROVIDER: [obj("openai", 3)],
            DEPLOYMENT: [obj("chat-engine", 4, "chat"), obj("a-copy", 5, "chat")],
            SERVICE: [obj("chat-engine", 6, "chat"), obj("gone-engine", 7, "gone")],
            POD: [obj("chat-engine-x", 8, "chat"), obj("other-engine-y", 9, "other")],
        }

        self.broken: dict[Kind, Exception] = {}
        self.asked: list[Kind] = []

    async def scan(self, kind: Kind, namespace: str, **_: Any) -> AsyncIterator[Object]:
        assert kind is not PVC, "there is no right to list claims"
        for item in self._found(kind):
            if namespace in ("", item["metadata"]["namespace"]):
                yield item

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        for item in self._found(kind):
            if item["metadata"]["name"] == name and item["metadata"]["namespace"] == namespace:
                return item
        raise NotFound(name)

    def _found(self, kind: Kind) -> list[Object]:
        self.asked.append(kind)
        if kind in self.broken:
            raise self.broken[kind]
        return list(self.objects.get(kind, []))


class Harness:
    """An auditor, and reconciles that saw everything."""

    def __init__(self) -> None:
        self.lists, self.keys, self.views, self.catalog = Lists(), DirtyKeys(), Views(), Catalog()
        cluster: Any = self.lists
        self.lease = asyncio.Event()
        self.auditor = Auditor(cluster, self.catalog, self.keys, self.views, (), self._leading)

    async def _leading(self) -> None:
        await self.lease.wait()

    def reconcile(self) -> None:
        """See what is, as the observer does: children by name, pods by label."""
        objects = self.lists.objects
        for raw in objects[INFERENCE_SERVICE]:
            key, metadata = Key.service("ns", raw["metadata"]["name"]), raw["metadata"]
            named = {
                kind.kind: [
                    o for o in objects[kind] if o["metadata"]["name"] == f"{key.name}-engine"
                ]
                for kind in (DEPLOYMENT, SERVICE)
            }
            own = version(metadata["uid"], metadata["resourceVersion"])
            self.views.saw(key, own, {**named, "Pod": objects[POD]})

    async def marked(self) -> set[Key]:
        self.keys._due.clear()
        await self.auditor.audit()
        return set(self.keys._due)


@pytest.fixture
async def seen() -> Harness:
    """One whose first audit is over."""
    harness = Harness()
    assert await harness.marked() == {CHAT, OTHER, OPENAI}  # nothing was reconciled yet
    harness.reconcile()
    assert await harness.marked() == set()
    return harness


@pytest.mark.parametrize(
    ("kind", "index", "expected"),
    [
        (INFERENCE_SERVICE, 1, {OTHER}),
        (DEPLOYMENT, 0, {CHAT}),
        (DEPLOYMENT, 1, set()),  # bears the labels, but is no child
        (SERVICE, 0, {CHAT}),
        (SERVICE, 1, set()),  # its service is gone, and the garbage collector comes
        (POD, 1, {OTHER}),
        (INFERENCE_PROVIDER, 0, {OPENAI, CHAT}),
        (INFERENCE_RUNTIME, 0, {OTHER}),
    ],
)
async def test_a_change_that_no_event_told(
    seen: Harness, kind: Kind, index: int, expected: set[Key]
) -> None:
    seen.lists.objects[kind][index]["metadata"]["resourceVersion"] = "99"
    assert await seen.marked() == expected
    del seen.lists.objects[kind][index]
    assert await seen.marked() == expected
    seen.reconcile()
    assert await seen.marked() <= {OTHER}  # a service that is gone is forgotten
    assert await seen.marked() == set()


async def test_a_claim_that_comes_or_goes_unseen(seen: Harness) -> None:
    weights, other = seen.lists.objects[PVC]
    weights["metadata"]["resourceVersion"] = "99"  # bound, resized: of no matter
    seen.lists.objects[PVC].remove(other)
    assert await seen.marked() == set()
    seen.lists.objects[PVC].remove(weights)
    assert await seen.marked() == {OTHER}
    assert await seen.marked() == set()
    seen.lists.objects[PVC].append(weights)
    assert await seen.marked() == {OTHER}


@pytest.mark.parametrize("error", [Forbidden("a right is missing"), KeyError("a bug")])
@pytest.mark.parametrize(
    ("broken", "hidden"),
    [
        (INFERENCE_SERVICE, {OTHER}),
        (POD, {CHAT}),
        (DEPLOYMENT, {CHAT}),
        (INFERENCE_PROVIDER, {OPENAI, CHAT}),
        (PVC, set()),
    ],
)
async def test_a_list_that_cannot_be_read_hides_its_own_kind_only(
    seen: Harness, broken: Kind, hidden: set[Key], error: Exception
) -> None:
    changes = [(INFERENCE_SERVICE, 1), (POD, 0), (DEPLOYMENT, 0), (INFERENCE_PROVIDER, 0)]
    for kind, index in changes:
        seen.lists.objects[kind][index]["metadata"]["resourceVersion"] = "99"
    seen.lists.broken[broken] = error
    assert await seen.marked() >= {CHAT, OTHER, OPENAI} - hidden
    assert not await seen.auditor.audit()
    seen.lists.broken.clear()
    assert await seen.marked() >= hidden
    assert await seen.auditor.audit()


async def test_a_namespace_that_cannot_be_read_hides_no_other() -> None:
    harness = Harness()
    harness.lists.objects[INFERENCE_SERVICE][1]["metadata"]["namespace"] = "gone"
    harness.auditor._namespaces = ("gone", "ns")
    assert await harness.marked() == {CHAT, Key.service("gone", "other"), OPENAI}
    real = harness.lists.scan

    async def scan(kind: Kind, namespace: str, **how: Any) -> AsyncIterator[Object]:
        if namespace == "gone":
            raise Forbidden("no role there any more")
        async for item in real(kind, namespace, **how):
            yield item

    harness.lists.scan = scan  # type: ignore[method-assign]
    harness.lists.objects[INFERENCE_SERVICE].clear()
    assert CHAT in await harness.marked()
    assert set(harness.catalog.entries) == {Key.service("gone", "other")}


async def test_a_replica_without_the_lease_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AUDIT_SECONDS", 0.0)
    harness = Harness()
    task = asyncio.create_task(harness.auditor.run())
    await asyncio.sleep(0.02)
    assert harness.lists.asked == []
    harness.lease.set()
    async with asyncio.timeout(5):
        while POD not in harness.lists.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("broken", [False, True])
async def test_services_are_known_before_the_first_reconcile(broken: bool) -> None:
    harness = Harness()
    if broken:
        harness.lists.broken[INFERENCE_SERVICE] = Forbidden("a right is missing")
    begun = asyncio.create_task(harness.auditor.begun())
    task = asyncio.create_task(harness.auditor.run())
    await asyncio.sleep(0.02)
    assert not begun.done(), "the lease is another's"
    harness.lease.set()
    async with asyncio.timeout(5):
        await begun
    assert harness.catalog.entries.keys() == (set() if broken else {CHAT, OTHER})
    assert harness.keys._due.keys() == harness.catalog.entries.keys()
    assert harness.lists.asked == [INFERENCE_SERVICE]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_list_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.01)
    harness = Harness()

    async def scan(*_: Any, **__: Any) -> AsyncIterator[Object]:
        await asyncio.Event().wait()
        yield {}

    harness.lists.scan = scan  # type: ignore[method-assign]
    harness.lease.set()
    task = asyncio.create_task(harness.auditor.run())
    async with asyncio.timeout(5):
        await harness.auditor.begun()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_all_are_looked_at_whatever_the_lists_say(
    seen: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen.auditor, "_resync_at", 0.0)
    for kind in (INFERENCE_SERVICE, INFERENCE_PROVIDER, POD):
        seen.lists.broken[kind] = Forbidden("a right is missing")
    assert await seen.marked() == {CHAT, OTHER, OPENAI}


async def test_a_name_that_is_free_again_concerns_who_waited_for_it(seen: Harness) -> None:
    first, second = seen.lists.objects[INFERENCE_SERVICE]
    first["spec"]["model"] = second["spec"]["model"] = {"servedName": "qwen"}
    await seen.marked()
    seen.reconcile()
    seen.lists.objects[INFERENCE_SERVICE].remove(first)
    assert await seen.marked() == {CHAT, OTHER}


async def test_now_and_then_all_are_looked_at(
    seen: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen.auditor, "_resync_at", 0.0)
    assert await seen.marked() == {CHAT, OTHER, OPENAI}
    assert await seen.marked() == set()
    assert module.AUDIT_SECONDS * 1.1 < 60
