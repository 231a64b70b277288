"""Nodes' labels → bytes of a device; what runs keeps the number that it was started with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from world import Object, service

from overspill.api.service import InferenceService
from overspill.cluster import Cluster
from overspill.controller import accelerators
from overspill.controller.accelerators import Accelerators, smallest, started_with
from overspill.controller.facts import Fault, Pod
from overspill.runtimes import RenderContext, render, runtime_of

MIB = 1 << 20
LABEL = "nvidia.com/gpu.memory"
L4 = {LABEL: "23034", "nvidia.com/gpu.product": "NVIDIA-L4"}
H100 = {LABEL: "81559", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "zone": "a"}


def accelerated(**spec: Any) -> InferenceService:
    return service(resources={"accelerator": spec})


def deployment(subject: InferenceService, memory: int | None) -> Object:
    """What runs now: rendered with that memory by the nodes' labels."""
    context = RenderContext(
        engine_image="cpu",
        engine_gpu_image="gpu",
        pull_policy="IfNotPresent",
        release_namespace="s",
        accelerator_memory=memory,
    )
    return render(runtime_of(subject, None), subject, context)[-1]


@pytest.mark.parametrize(
    ("nodes", "selector", "expected"),
    [
        ([], {}, None),
        ([{}], {}, None),
        ([L4, H100], {}, 23034),
        ([L4, H100], {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, 81559),
        ([L4, H100], {"zone": "a"}, 81559),
        ([L4, H100], {"zone": "b"}, None),
        ([{LABEL: "24GB"}, {LABEL: "-1"}, {LABEL: ""}, {LABEL: "٣"}, H100], {}, 81559),
    ],
)
def test_the_smallest_device_that_a_replica_may_get(
    nodes: list[dict[str, str]], selector: dict[str, str], expected: int | None
) -> None:
    assert smallest(nodes, LABEL, selector) == (expected and expected * MIB)


@pytest.mark.parametrize(
    ("before", "after", "known"),
    [
        ({}, {}, True),
        ({"count": 1}, {"count": 2}, True),
        ({"product": "NVIDIA-L4"}, {"product": "NVIDIA-L4"}, True),
        ({"product": "NVIDIA-L4"}, {"product": "NVIDIA-T4"}, False),
        ({}, {"product": "NVIDIA-L4"}, False),
        ({}, {"resource": "amd.com/gpu"}, False),
    ],
)
def test_engines_keep_what_they_were_started_with(
    before: dict[str, Any], after: dict[str, Any], known: bool
) -> None:
    for memory in (None, 23034 * MIB):
        found = started_with(deployment(accelerated(**before), memory), accelerated(**after))
        assert found == (known, memory)


def test_without_a_deployment_or_an_accelerator_nothing_is_known() -> None:
    assert started_with(None, accelerated()) == (False, None)
    assert started_with(deployment(accelerated(), MIB), service()) == (False, None)


class Nodes:
    """An API server that lists nodes."""

    def __init__(self) -> None:
        self.labels = [L4, H100]
        self.asked: list[str] = []
        self.status = 200
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.query["labelSelector"])
        await self.goes_on.wait()
        items = [{"metadata": {"name": "n", "labels": labels}} for labels in self.labels]
        body = {"metadata": {"resourceVersion": "1"}, "items": items}
        return web.json_response(body, status=self.status)


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
async def cluster(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_get("/api/v1/nodes", nodes.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://{host}:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    async with Cluster.connect(kubeconfig=str(tmp_path / "kubeconfig")) as connected:
        yield connected
    await runner.cleanup()


async def test_names_that_nobody_asks_for_are_forgotten(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody who may make a service may name a new resource each minute."""
    known = Accelerators(cluster)
    monkeypatch.setattr(accelerators, "KEPT_SECONDS", 0)
    for number in range(5):
        await known.memory(accelerated(resource=f"example.com/gpu{number}"), None)
    assert list(known._nodes) == ["example.com/gpu4.memory"]


async def test_nodes_are_listed_once_a_minute_and_only_when_asked(
    cluster: Cluster, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Accelerators(cluster)
    assert await known.memory(service(), None) is None
    assert await known.memory(accelerated(), running(7 * MIB)) == 7 * MIB
    assert nodes.asked == []
    for _ in range(3):
        assert await known.memory(accelerated(), None) == 23034 * MIB
    assert nodes.asked == [LABEL]
    monkeypatch.setattr(accelerators, "FRESH_SECONDS", 0)
    nodes.labels = [H100]
    known = Accelerators(cluster)
    for _ in range(2):
        assert await known.memory(accelerated(), None) == 81559 * MIB
    assert len(nodes.asked) == 3


def running(memory: int | None, replicas: int = 1, **spec: Any) -> Object:
    """A Deployment, started with that memory by the nodes' labels."""
    found = deployment(accelerated(**spec), memory)
    return {**found, "spec": {**found["spec"], "replicas": replicas}}


FITS, UNFIT = Pod("p", ready=True), Pod("p", fault=Fault("ModelDoesNotFit", "", model=True))


@pytest.mark.parametrize(
    ("labels", "started", "pods", "expected"),
    [
        # What runs keeps its number, also that it has none.
        ([L4, H100], running(7 * MIB), (FITS,), 7 * MIB),
        ([], running(7 * MIB), (FITS,), 7 * MIB),
        ([H100], running(None), (), None),
        # One that does not fit is told what there is now, which may be nothing.
        ([H100], running(7 * MIB), (UNFIT,), 81559 * MIB),
        ([], running(7 * MIB), (UNFIT,), None),
        # Where none is wanted nothing is rolled; nodes that left may come again.
        ([H100], running(7 * MIB, 0), (), 81559 * MIB),
        ([], running(7 * MIB, 0), (), 7 * MIB),
        # Other devices than before.
        ([H100], running(7 * MIB, product="NVIDIA-L4"), (FITS,), 81559 * MIB),
        ([], running(7 * MIB, product="NVIDIA-L4"), (FITS,), None),
    ],
)
async def test_a_node_that_comes_or_goes_rolls_nothing_that_runs(
    cluster: Cluster,
    nodes: Nodes,
    labels: list[dict[str, str]],
    started: Object,
    pods: tuple[Pod, ...],
    expected: int | None,
) -> None:
    nodes.labels = labels
    assert await Accelerators(cluster).memory(accelerated(), started, pods) == expected


async def test_the_field_wins_whatever_nodes_come_and_go(cluster: Cluster, nodes: Nodes) -> None:
    subject = accelerated(memory="24Gi")
    for started in (None, running(7 * MIB), running(7 * MIB, 0)):
        assert await Accelerators(cluster).memory(subject, started) is None
    assert nodes.asked == []
    for by_label in (None, 23034 * MIB):
        assert started_with(deployment(subject, by_label), subject) == (True, 24 << 30)


async def test_without_the_right_nobody_knows_and_it_is_not_asked_again_at_once(
    cluster: Cluster, nodes: Nodes
) -> None:
    nodes.status = 403
    known = Accelerators(cluster)
    for _ in range(3):
        assert await known.memory(accelerated(), None) is None
    assert nodes.asked == [LABEL]


async def test_a_list_that_fails_spoils_no_reconcile_and_backs_off(
    cluster: Cluster, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    def backoff(failures: int, longest: float) -> float:
        pauses.append(failures)
        return 0.0 if failures < 2 else longest

    monkeypatch.setattr(accelerators, "backoff", backoff)
    nodes.status = 500
    known = Accelerators(cluster)
    for _ in range(4):
        assert await known.memory(accelerated(), None) is None
    assert pauses == [1, 2]
    assert len(nodes.asked) == 2


async def test_what_was_known_stands_while_nodes_cannot_be_read(
    cluster: Cluster, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "FRESH_SECONDS", 0)
    known = Accelerators(cluster)
    assert await known.memory(accelerated(), None) == 23034 * MIB
    nodes.status = 500
    assert await known.memory(accelerated(), None) == 23034 * MIB


async def test_nobody_waits_long_for_a_slow_list_and_all_wait_for_the_same(
    cluster: Cluster, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "WAIT_SECONDS", 0.05)
    nodes.goes_on.clear()
    known = Accelerators(cluster)
    slow = [known.memory(accelerated(), None) for _ in range(4)]
    assert await asyncio.wait_for(asyncio.gather(*slow), 5) == [None] * 4
    monkeypatch.setattr(accelerators, "WAIT_SECONDS", 5)
    nodes.goes_on.set()
    assert await known.memory(accelerated(), None) == 23034 * MIB
    assert len(nodes.asked) == 1
