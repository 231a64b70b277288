"""Operators that reach the API server through a proxy that fails on command."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operator_world import Operator, World
from proxy import Faults, Proxy

from lab.account import log_in
from overspill.cluster import Cluster
from overspill.gateway.settings import Settings
from overspill.gateway.state import State
from overspill.gateway.watch import Feeder

LONG = bool(os.environ.get("OVERSPILL_CHAOS"))  # `make chaos`
FIGURES: list[tuple[str, str, str]] = []
ZERO = {"minReplicas": 0, "maxReplicas": 2}


def length(short: int, long: int) -> int:
    """Seconds, or a number of things: the short form or the whole one."""
    return long if LONG else short


def figure(row: str, injected: str, result: str) -> None:
    """Keep a figure for the table at the end."""
    FIGURES.append((row, injected, result))


@dataclass
class FaultyWorld:
    """A namespace whose operators reach the API server through a proxy each."""

    world: World
    stack: ExitStack

    def start(
        self, identity: str = "one", faults: Faults | None = None, **env: str
    ) -> tuple[Operator, Proxy]:
        """Start an operator behind a proxy of its own, which fails from the first call on.

        A watch keeps the faults that were there when it was opened.
        """
        proxy = self.stack.enter_context(Proxy(self.world.folder / "kubeconfig"))
        proxy.faults = faults or Faults()
        config = proxy.kubeconfig(self.world.folder / f"{identity}.kubeconfig")
        return self.world.start(identity, KUBECONFIG=config, **env), proxy

    def lead(self, operator: Operator) -> None:
        """Wait until an operator leads."""
        self.world.eventually("it leads", lambda: operator.leads, 20)

    def edit(self, name: str, number: int, **spec: Any) -> None:
        """Change one field of a service that shows in its Deployment."""
        pod = {"annotations": {"edit": str(number)}}
        self.world.apply(name, **{"scaling": ZERO, "pod": pod, **spec})

    def shown(self, name: str) -> int:
        """The number of the last edit that the Deployment shows, 0 before the first."""
        return edit_of(self.world.get("deployment", f"{name}-engine"))

    def settled(self, number: int, names: list[str]) -> bool:
        """Whether these services are all there are, and their children and status show an edit."""
        namespace = self.world.namespace
        deployments = {
            d["metadata"]["labels"]["overspill.dev/service"]: edit_of(d)
            for d in self.world.kube.list("deployments", namespace)
        }
        told = {
            s["metadata"]["name"]
            for s in self.world.kube.list("infsvc", namespace)
            if s.get("status", {}).get("observedGeneration") == s["metadata"]["generation"]
        }
        return told == set(names) and deployments == dict.fromkeys(names, number)

    def reaches(self, name: str, number: int, within: float) -> float:
        """Wait until the Deployment shows an edit; return the seconds that it took."""
        started = time.monotonic()
        self.world.eventually(
            f"edit {number} of {name}", lambda: self.shown(name) == number, within
        )
        return time.monotonic() - started


def edit_of(deployment: dict[str, Any] | None) -> int:
    """The number of the last edit that a Deployment shows."""
    if deployment is None:
        return 0
    annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
    return int(annotations.get("edit", 0))


def all_rights(world: World, folder: Path) -> Path:
    """Write a kubeconfig whose token may do everything in the world's namespace."""
    where = ("-n", world.namespace)
    world.kube.kubectl("create", "serviceaccount", "follower", *where)
    subject = f"--serviceaccount={world.namespace}:follower"
    world.kube.kubectl(
        "create", "rolebinding", "follower", "--clusterrole=cluster-admin", subject, *where
    )
    return log_in(world.kube, "follower", world.namespace, folder / "follower")


@contextmanager
def followed(kubeconfig: str, namespace: str) -> Iterator[State]:
    """What a gateway behind that kubeconfig knows, followed in a thread of its own."""
    state, stop, up = State(time.monotonic, 100), asyncio.Event(), threading.Event()
    settings = Settings(namespace, (namespace,), "gateway", "gateway")

    async def follow() -> None:
        async with Cluster.connect(kubeconfig=kubeconfig) as cluster:
            feeder = Feeder(cluster, state, settings)
            feeder.start(on_provider=lambda: None, on_failure=stop.set)
            while not feeder.synced:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
            loop.append(asyncio.get_running_loop())
            up.set()
            await stop.wait()
            assert not feeder.failed
            await feeder.close()

    loop: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(follow()), daemon=True)
    thread.start()
    assert up.wait(20)
    try:
        yield state
    finally:
        loop[0].call_soon_threadsafe(stop.set)
        thread.join(10)
