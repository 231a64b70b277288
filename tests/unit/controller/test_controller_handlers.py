"""kopf's part: its settings, and that every event marks the right keys."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest

from overspill.api.names import LABEL_MANAGED_BY, LABEL_SERVICE, MANAGED_BY
from overspill.cluster import Event, Kind
from overspill.cluster.kinds import DEPLOYMENT, PDB, POD, SERVICE
from overspill.controller import handlers
from overspill.controller.addresses import Addresses
from overspill.controller.catalog import Catalog, Key
from overspill.controller.handlers import Sink
from overspill.controller.observe import CHILDREN
from overspill.controller.views import CHILD_SELECTOR, Views, version
from overspill.controller.worker import DirtyKeys


class Marks(DirtyKeys):
    """Remembers what was marked."""

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[Key] = []

    def mark(self, keys: Any, delay: float = 0.0) -> None:
        self.marked += sorted(keys)


def service(name: str, served: str = "") -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "creationTimestamp": "1"}
    metadata |= {"uid": f"uid-{name}", "resourceVersion": "1"}
    spillover = {"providers": [{"name": "openai", "model": "gpt"}]}
    spec = {"model": {"servedName": served}, "spillover": spillover}
    return {"kind": "InferenceService", "metadata": metadata, "spec": spec}


def child(service: str, rv: int, name: str = "engine") -> dict[str, Any]:
    labels = {LABEL_SERVICE: service, LABEL_MANAGED_BY: MANAGED_BY}
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(rv)}
    return {**metadata, "labels": labels}


def test_events_mark_what_they_concern() -> None:
    keys = Marks()
    sink = Sink(keys, Catalog(), Views())
    a, b = Key.service("ns", "a"), Key.service("ns", "b")
    sink.service(service("a", "qwen"), gone=False)
    assert keys.marked == [a]
    sink.service(service("b", "qwen"), gone=False)
    assert keys.marked[1:] == [a, b]
    sink.provider("ns", "openai")
    assert keys.marked[3:] == [Key.provider("ns", "openai"), a, b]
    sink.child(DEPLOYMENT, child("a", 1), gone=False)
    assert keys.marked[6:] == [a]
    sink.service(service("a", "qwen"), gone=True)
    assert keys.marked[7:] == [a, b]


def test_what_the_last_reconcile_read_is_no_news() -> None:
    keys, views = Marks(), Views()
    sink = Sink(keys, Catalog(), views)
    a, raw = Key.service("ns", "a"), service("a")
    pods = [child("a", 5, "x"), child("a", 6, "y")]
    read = {"Deployment": [child("a", 3)], "Pod": pods}
    views.saw(a, version("uid-a", "1"), {k: [{"metadata": m} for m in v] for k, v in read.items()})
    sink.service(raw, gone=False)
    sink.child(DEPLOYMENT, child("a", 3), gone=False)
    assert keys.marked == []
    assert a in sink.catalog.entries
    sink.child(DEPLOYMENT, child("a", 2), gone=False)  # older: whoever reads again knows
    sink.child(SERVICE, child("a", 3), gone=False)
    sink.child(POD, pods[0], gone=False)  # one of several
    sink.child(DEPLOYMENT, child("a", 3), gone=True)
    assert keys.marked == [a] * 4
    sink.service(service("b", "a"), gone=False)  # wants the name of the first
    assert keys.marked[4:] == [a, Key.service("ns", "b")]
    sink.service(raw, gone=True)
    assert a in keys.marked[6:]


def test_a_disruption_budget_is_news_by_what_is_not_its_status() -> None:
    keys, views = Marks(), Views()
    sink = Sink(keys, Catalog(), views)
    a, seen = Key.service("ns", "a"), child("a", 3) | {"generation": 1, "managedFields": [{}]}
    views.saw(a, version("uid-a", "1"), {PDB.kind: [{"metadata": seen}]})
    sink.child(PDB, seen | {"resourceVersion": "4", "managedFields": []}, gone=False)
    assert keys.marked == []
    changed = ({"generation": 2}, {"uid": "new"}, {"ownerReferences": []}, {"annotations": {}})
    for change in (*changed, {"labels": seen["labels"] | {"other": "label"}}):
        sink.child(PDB, seen | {"resourceVersion": "4"} | change, gone=False)
    sink.child(PDB, seen, gone=True)
    assert keys.marked == [a] * 6


async def test_children_and_pods_are_followed_in_each_namespace() -> None:
    asked = []

    class Followed:
        async def follow(self, kind: Kind, namespace: str, *, labels: str) -> AsyncIterator[Event]:
            asked.append((kind, namespace, labels))
            if kind is POD:
                yield Event("ADDED", {"metadata": child("a", 1) | {"namespace": namespace}})
                yield Event("DELETED", {"metadata": child("a", 1) | {"namespace": namespace}})

    class Told(Sink):
        def child(self, kind: Kind, metadata: dict[str, Any], *, gone: bool) -> None:
            told.append((kind, metadata["namespace"], gone))

    told: list[tuple[Kind, str, bool]] = []
    followed: Any = Followed()
    sink = Told(Marks(), Catalog(), Views())
    await handlers.follow(sink, followed, ("one", "two"))
    kinds = {*CHILDREN.values(), POD}
    assert set(asked) == {(kind, ns, CHILD_SELECTOR) for kind in kinds for ns in ("one", "two")}
    assert told == [(POD, ns, gone) for ns in ("one", "two") for gone in (False, True)]
    await handlers.follow(sink, followed, ())
    assert {namespace for _, namespace, _ in asked[12:]} == {""}


async def test_what_a_person_changed_goes_before_echoes_that_wait() -> None:
    keys = DirtyKeys()
    sink = Sink(keys, Catalog(), Views())
    changed, judged = service("changed"), service("judged")
    changed["metadata"]["generation"] = judged["metadata"]["generation"] = 1
    judged["status"] = {"observedGeneration": 1}
    keys.mark([Key.service("ns", "due")])
    sink.service(judged, gone=False)
    sink.service(changed, gone=False)
    taken = [(await keys.take()).name for _ in range(3)]
    assert taken == ["changed", "due", "judged"]


def test_kopf_is_quiet_and_never_waits_on_a_silent_watch() -> None:
    settings = handlers.settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.watching.server_timeout is not None
    assert settings.watching.client_timeout is not None
    assert settings.watching.server_timeout < settings.watching.client_timeout <= 75


def test_kopf_neither_copies_objects_nor_stores_a_state_in_them() -> None:
    memory = handlers.settings().persistence.diffbase_storage
    body, patch = kopf.Body(service("a")), kopf.Patch()  # type: ignore[typeddict-item]
    memory.store(body=body, patch=patch, essence=memory.build(body=body))
    assert not patch
    assert memory.fetch(body=body) == memory.build(body=body) == {}


async def test_watches_that_end_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []
    done = threading.Event()

    def run(**given: Any) -> None:
        starts.append(time.monotonic())
        if len(starts) == 1:
            raise RuntimeError("watch broke")
        done.set()
        given["stop_flag"].wait(10)

    monkeypatch.setattr(kopf, "run", run)
    monkeypatch.setattr(handlers, "backoff", lambda *_, **__: 0.0)
    sink = Sink(Marks(), Catalog(), Views())
    task = asyncio.create_task(handlers.watch(sink, (), threading.Event()))
    assert await asyncio.to_thread(done.wait, 10)
    task.cancel()  # and the thread ends with it
    await asyncio.gather(task, return_exceptions=True)
    assert len(starts) == 2


def test_gateways_are_found_by_their_ready_endpoints() -> None:
    addresses = Addresses(None, "ns", "gateway-internal")  # type: ignore[arg-type]
    assert addresses() == set()
    addresses._slices = {
        "one": {
            "ports": [{"name": "metrics", "port": 9090}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
                {"addresses": ["10.0.0.3"], "conditions": {}},
            ],
        },
        "six": {"ports": None, "endpoints": [{"addresses": ["fd00::1"]}]},
        "empty": {"ports": [], "endpoints": None},
    }
    assert addresses() == {"10.0.0.1:9090", "10.0.0.3:9090", "[fd00::1]:9090"}
