"""Operators that die after a given number of writes, and what is left in the end."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from operator_world import NOWHERE, Object
from prometheus_client import CollectorRegistry

from overspill.api.names import API_VERSION, AUTOSCALER_MANAGER, LABEL_SERVICE
from overspill.autoscaler.gateways import ProviderReport
from overspill.autoscaler.health import ScalingHealth
from overspill.cluster import Cluster, Conflict, Fenced, Kind, NotFound
from overspill.cluster.kinds import (
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    NETWORK_POLICY,
    PDB,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
)
from overspill.controller import drift
from overspill.controller.announce import Announcer
from overspill.controller.catalog import Catalog, Key
from overspill.controller.metrics import Metrics
from overspill.controller.observe import Observer
from overspill.controller.reconcile import Reconciler
from overspill.controller.scaling import ScaleWriter
from overspill.controller.settings import Settings
from overspill.controller.treasurer import Treasurer
from overspill.controller.views import Views

MOST_WRITES = 30
SETTLED_SECONDS = 120  # within which the cluster comes to rest
CHILD_KINDS = {k.kind: k for k in (SERVICE_ACCOUNT, NETWORK_POLICY, SERVICE, PDB, DEPLOYMENT)}
WRITTEN_BY_OTHERS = {
    "status", "resourceVersion", "uid", "creationTimestamp", "time", "generation",
    "deployment.kubernetes.io/revision", "clusterIP", "clusterIPs",
}  # fmt: skip
MODEL = {"uri": "oci://registry.example/models/none:1"}


@dataclass(frozen=True)
class Wish:
    """What is asked of an operator: by a service, and by all that it looks at."""

    spec: Object = field(default_factory=dict)
    count: int = 0  # of the autoscaler
    engine_image: str = "registry.example/engine:1"
    runtime: Object | None = None  # spec of the InferenceRuntime that bears the service's name
    provider: ProviderReport | None = None  # of the InferenceProvider that bears its name


class Fixed:
    """An autoscaler that wants one count, and knows of one provider."""

    def __init__(self, wish: Wish, path: str) -> None:
        self.wish, self.path = wish, path

    def observe(self, *_: Any, **__: Any) -> None:
        pass

    def forget(self, _: str) -> None:
        pass

    def desired(self, _: str) -> int:
        return self.wish.count

    decided = desired

    def withheld(self, _: str) -> str:
        return ""

    def decisions(self, _: str) -> list[Any]:
        return []

    def health(self, _: str) -> ScalingHealth:
        return ScalingHealth(active=True, reason="Active")

    def traffic(self, _: str) -> None:
        return None

    def cost(self, _: str) -> None:
        return None

    def providers(self) -> dict[str, ProviderReport]:
        return {self.path: self.wish.provider} if self.wish.provider else {}


@dataclass
class Subject:
    """One service, or one provider, and everything around it."""

    admin: Cluster  # for what users and others do
    operator: Cluster
    namespace: str
    name: str

    async def ask(self, wish: Wish) -> None:
        """Apply what a user applies."""
        if wish.provider:
            models = [{"name": "gpt", "price": {"inputPerMTok": "1", "outputPerMTok": "2"}}]
            spec = {"type": "openai", "secretRef": {"name": "key"}, "models": models}
            await self._apply(INFERENCE_PROVIDER, spec)
        if wish.runtime:
            await self._apply(INFERENCE_RUNTIME, wish.runtime)
        engine = {"runtime": self.name} if wish.runtime else {}
        spec = {"model": MODEL, **NOWHERE, "engine": engine, **wish.spec}
        await self._apply(INFERENCE_SERVICE, spec)

    async def _apply(self, kind: Kind, spec: Object) -> None:
        metadata = {"name": self.name, "namespace": self.namespace}
        obj = {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata, "spec": spec}
        await self.admin.apply(kind, obj, manager="user")

    async def disturb(self, kind: Kind, patch: Object | None) -> None:
        """Change a child, or delete it, as somebody else would."""
        name = f"{self.name}-engine"
        if patch is None:
            await self.admin.delete(kind, self.namespace, name)
            return
        path = kind.path(self.namespace, name) + "?fieldManager=somebody"
        headers = {"Content-Type": "application/merge-patch+json"}
        status, body = await self.admin.raw("PATCH", path, body=patch, headers=headers)
        assert status == 200, body

    async def live(self, wish: Wish, writes: int = MOST_WRITES) -> int:
        """Reconcile until nothing changes or the process dies; return the writes that it tried."""
        tried: list[str] = []

        def guard(verb: str, kind: Kind) -> None:
            if len(tried) == writes:
                raise Fenced(f"died before {verb} {kind.kind}")
            tried.append(f"{verb} {kind.kind}")

        reconciler = self._reconciler(self.operator.guarded(guard), wish)
        quiet, last, until = 0, [""], time.monotonic() + SETTLED_SECONDS
        while quiet < 3:  # the API server's controllers change a Deployment for a moment
            assert time.monotonic() < until, f"{self.name} does not come to rest: {tried[-5:]}"
            before = len(tried)
            try:
                await self._round(reconciler, wish)
            except Fenced:
                break
            except Conflict:
                continue
            # What is refused is tried in each round.
            same = tried[before:] == last and await self._pods_are_there(wish.count)
            quiet = quiet + 1 if same else 0
            last = tried[before:]
            await asyncio.sleep(0.05)
        return len(tried)

    async def _pods_are_there(self, count: int) -> bool:
        """Whether the cluster's own controllers and its scheduler have done their part."""
        pods = await self.admin.list(POD, self.namespace, labels=f"{LABEL_SERVICE}={self.name}")
        conditions = [pod.get("status", {}).get("conditions") for pod in pods.items]
        return len(pods.items) == count and all(conditions)

    def _reconciler(self, guarded: Cluster, wish: Wish) -> Reconciler:
        autoscaler: Any = Fixed(wish, f"{self.namespace}/{self.name}")
        treasurer = Treasurer(guarded, self.namespace, "overspill-ledger", None)
        return Reconciler(
            guarded,
            Observer(self.operator, autoscaler, treasurer, Catalog(), (1, 37), Views()),
            autoscaler,
            ScaleWriter(guarded),
            Announcer(guarded, "me"),
            Settings(
                namespace=self.namespace,
                engine_image=wish.engine_image,
                engine_gpu_image=wish.engine_image,
            ),
            Metrics(CollectorRegistry()),
        )

    async def _round(self, reconciler: Reconciler, wish: Wish) -> None:
        await reconciler.reconcile(Key.provider(self.namespace, self.name))
        await reconciler.reconcile(Key.service(self.namespace, self.name))
        try:
            deployment = await self.operator.get(DEPLOYMENT, self.namespace, f"{self.name}-engine")
        except NotFound:
            return
        # The autoscaler's loop writes every change of a count that is its own.
        owned = drift.owns_replicas(deployment, AUTOSCALER_MANAGER, "scale")
        if owned and deployment["spec"]["replicas"] != wish.count:
            version = deployment["metadata"]["resourceVersion"]
            await reconciler.scale.write_scale(f"{self.namespace}/{self.name}", wish.count, version)

    async def end(self, wish: Wish) -> Object:
        """Return all that the operator writes, as it is now, without what differs by chance."""
        service = await self.admin.get(INFERENCE_SERVICE, self.namespace, self.name)
        found: Object = {"service": _status(service, wish.count == 0)}
        if wish.provider:
            found["provider"] = _status(
                await self.admin.get(INFERENCE_PROVIDER, self.namespace, self.name), whole=True
            )
        for kind in CHILD_KINDS.values():
            try:
                child = await self.admin.get(kind, self.namespace, f"{self.name}-engine")
            except NotFound:
                continue
            found[kind.kind] = _essence(child)
        uid = service["metadata"]["uid"]
        plain: Object = json.loads(json.dumps(found).replace(uid, "UID").replace(self.name, "NAME"))
        return plain


def _status(obj: Object, whole: bool) -> Object:
    """What the status says; with pods, without what depends on how far their start is."""
    status = obj.get("status", {})
    conditions = {
        c["type"]: (c["status"], c["reason"], c.get("message"))
        for c in status.get("conditions", [])
        if whole or c["type"] == "SpilloverReady"
    }
    judged = status.get("observedGeneration") == obj["metadata"]["generation"]
    return {"judged": judged, "desired": status.get("desiredReplicas"), "conditions": conditions}


def _essence(value: Any) -> Any:
    """An object without what differs by chance."""
    if isinstance(value, dict):
        kept = {k: _essence(v) for k, v in value.items() if k not in WRITTEN_BY_OTHERS}
        if "managedFields" in kept:
            ours = [e for e in kept["managedFields"] if e["manager"].startswith("overspill")]
            kept["managedFields"] = sorted(ours, key=lambda e: e["manager"])
        return {k: v for k, v in kept.items() if v != {}}
    if isinstance(value, list):
        return [_essence(v) for v in value]
    return value
