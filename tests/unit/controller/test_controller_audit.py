"""An audit marks what the watches did not tell, and nothing else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from overspill.api.names import LABEL_MANAGED_BY, LABEL_SERVICE, MANAGED_BY
from overspill.cluster import Kind
from overspill.cluster.kinds import DEPLOYMENT, INFERENCE_PROVIDER, INFERENCE_SERVICE, POD, SERVICE
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
        self.objects: dict[Kind, list[Object]] = {
            INFERENCE_SERVICE: [obj("chat", 1, spillover=providers), obj("other", 2)],
            INFERENCE_PROVIDER: [obj("openai", 3)],
            DEPLOYMENT: [obj("chat-engine", 4, "chat"), obj("a-copy", 5, "chat")],
            SERVICE: [obj("chat-engine", 6, "chat"), obj("gone-engine", 7, "gone")],
            POD: [obj("chat-engine-x", 8, "chat"), obj("other-engine-y", 9, "other")],
        }

    async def scan(self, kind: Kind, namespace: str, **_: Any) -> AsyncIterator[Object]:
        for item in self.objects.get(kind, []):
            yield item


class Harness:
    """An auditor, and reconciles that saw everything."""

    def __init__(self) -> None:
        self.lists, self.keys, self.views, self.catalog = Lists(), DirtyKeys(), Views(), Catalog()
        cluster: Any = self.lists
        self.auditor = Auditor(cluster, self.catalog, self.keys, self.views, ())

    def reconcile(self) -> None:
        """See what is, as the observer does: children by name, pods by label."""
        objects = self.lists.objects
        for raw in objects[INFERENCE_SERVICE]:
            key, metadata = Key.service("ns", raw["metadata"]["name"]), raw["metadata"]
            named = [
                o for kind in (DEPLOYMENT, SERVICE) for o in objects[kind]
                if o["metadata"]["name"] == f"{key.name}-engine"
            ]  # fmt: skip
            own = version(metadata["uid"], metadata["resourceVersion"])
            self.views.saw(key, own, [*objects[POD], *named])

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
