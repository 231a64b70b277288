"""Tests that need a Kubernetes API server: `make cluster-up`, then KUBECONFIG set to it.

Every test gets a namespace of its own, which is deleted at its end. The CRDs are those of
this checkout, installed once, as the chart would.
"""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from operator_world import World

from lab.account import OPERATOR, log_in, operator_rights, watches_all
from lab.kube import Kube
from overspill.cli.crds import HELM_MANAGER, definitions
from overspill.cli.options import Target
from overspill.cluster import Cluster, NotFound
from overspill.cluster.kinds import CRD, NAMESPACE

LABELS = {"pod-security.kubernetes.io/enforce": "restricted", "overspill.dev/test": "true"}


# Folders whose tests last longest. They begin, so that no process is busy long after the others.
LONGEST = ("faults", "operator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first; a file's stay together."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((i for i, name in enumerate(LONGEST) if name in item.path.parts), len(LONGEST))


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Path of the kubeconfig; a run without one fails, it does not skip."""
    path = os.environ.get("KUBECONFIG", "")
    if not path or not Path(path).exists():
        pytest.fail("KUBECONFIG must name a kubeconfig: run `make cluster-up` first", pytrace=False)
    return path


@pytest.fixture(scope="session", autouse=True)
def _crds(kubeconfig: str) -> None:
    asyncio.run(_install_crds(kubeconfig))


async def _install_crds(kubeconfig: str) -> None:
    async with Cluster.connect(kubeconfig=kubeconfig) as cluster:
        for definition in definitions(Target()):
            await cluster.apply(CRD, definition, manager=HELM_MANAGER)
            await asyncio.wait_for(_established(cluster, definition["metadata"]["name"]), 30)


async def _established(cluster: Cluster, name: str) -> None:
    async for event in cluster.watch(CRD, fields=f"metadata.name={name}"):
        for crd in [*event.items, event.obj]:
            conditions = crd.get("status", {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return


@pytest.fixture
async def cluster(kubeconfig: str) -> AsyncIterator[Cluster]:
    """A connection to the API server."""
    async with Cluster.connect(kubeconfig=kubeconfig) as connected:
        yield connected


@pytest.fixture
def namespace(kubeconfig: str) -> Iterator[str]:
    """The name of a new namespace that admits only restricted pods."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    asyncio.run(_create_namespace(kubeconfig, name))
    yield name
    asyncio.run(_delete_namespace(kubeconfig, name))


async def _create_namespace(kubeconfig: str, name: str) -> None:
    async with Cluster.connect(kubeconfig=kubeconfig) as cluster:
        metadata = {"name": name, "labels": LABELS}
        await cluster.create(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        )


async def _delete_namespace(kubeconfig: str, name: str) -> None:
    async with Cluster.connect(kubeconfig=kubeconfig) as cluster:
        with suppress(NotFound):
            await cluster.delete(NAMESPACE, "", name)


@pytest.fixture(scope="session")
def _alone(kubeconfig: str) -> None:
    """Another operator that watches all namespaces would act on the tests' services too."""
    where = watches_all(Kube(kubeconfig))
    if where:
        pytest.fail(f"an operator in {where} watches all namespaces; uninstall it first")


@pytest.fixture
def world(kubeconfig: str, namespace: str, tmp_path: Path, _alone: None) -> Iterator[World]:
    """A namespace, a kubeconfig of the operator's service account, and no operator yet."""
    kube = Kube(kubeconfig)
    kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(operator_rights(kube, namespace)))
    log_in(kube, OPERATOR, namespace, tmp_path / "kubeconfig")
    made = World(kube, namespace, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)
