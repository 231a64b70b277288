"""Gather the facts of one service: reads only, all at once, straight from the API server.

Nothing is cached, so a decision never rests on a view that our own last write has outdated.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace

from overspill.api.base import InvalidObject
from overspill.api.budget import BudgetSpec
from overspill.api.engine import BUNDLED
from overspill.api.names import LABEL_SERVICE
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.autoscaler.loop import Autoscaler
from overspill.autoscaler.signals import Replicas
from overspill.cluster import Cluster, Forbidden, NotFound
from overspill.cluster.kinds import (
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    NETWORK_POLICY,
    PDB,
    POD,
    PVC,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from overspill.controller import capacity, provisioning
from overspill.controller.accelerators import Accelerators
from overspill.controller.catalog import Catalog, Key
from overspill.controller.facts import (
    Budget,
    Facts,
    Object,
    ProviderFacts,
    Scaling,
    count_terminating,
    loader_addresses,
    made_for,
    read_pods,
)
from overspill.controller.offer import first_rates, offer
from overspill.controller.progress import Loaders
from overspill.controller.stake import stake
from overspill.controller.treasurer import Treasurer
from overspill.controller.views import Views, version
from overspill.ledger.messages import OF_PROVIDER, OF_SERVICE
from overspill.prometheus.queries import OwnMetrics
from overspill.runtimes import child_name

CHILDREN: dict[str, Kind] = {
    kind.kind: kind for kind in (SERVICE_ACCOUNT, NETWORK_POLICY, SERVICE, PDB, DEPLOYMENT)
}


class Observer:
    """Reads what decisions need."""

    def __init__(
        self,
        cluster: Cluster,
        autoscaler: Autoscaler,
        treasurer: Treasurer,
        catalog: Catalog,
        server_version: tuple[int, int],
        views: Views,
    ) -> None:
        """Read through ``cluster``.

        :param views: learns what was read.
        """
        self._cluster = cluster
        self._autoscaler = autoscaler
        self._treasurer = treasurer
        self._catalog = catalog
        self._version = server_version
        self._views = views
        self._accelerators = Accelerators(cluster)
        self._loaders = Loaders()

    def met(self, raw: Object) -> None:
        """Take up a service that was read: a list that is stale may have lost it."""
        self._catalog.put(raw)

    def forget(self, key: Key) -> None:
        """Forget a service that is gone."""
        self._views.forget(key)

    async def observe(self, service: InferenceService) -> Facts:
        """Return the facts, after the autoscaler was told its part of them.

        :raises ClusterError: when the API server does not answer.
        """
        namespace = service.metadata.namespace
        listed = service.spec.spillover.providers
        refs = sorted({Key.provider(ref.namespace or namespace, ref.name) for ref in listed})
        labelled, claim, (runtime, invalid), children, providers = await asyncio.gather(
            self._pods(service),
            self._missing_claim(service),
            self._runtime(service),
            asyncio.gather(*(self._child(kind, service) for kind in CHILDREN.values())),
            asyncio.gather(*(self._provider(ref) for ref in refs)),
        )
        key = Key.service(namespace, service.metadata.name)
        own = version(service.metadata.uid, service.metadata.resource_version)
        by_kind = dict(zip(CHILDREN, children, strict=True))
        seen = {kind: [child] for kind, child in by_kind.items() if child}
        self._views.saw(key, own, {**seen, POD.kind: labelled})
        pods = made_for(labelled, service.metadata.name)
        nodes = await provisioning.promises(self._cluster, pods, time.time())
        replicas = read_pods(pods, _model_image(service), nodes)
        facts = Facts(
            service=service,
            children=by_kind,
            pods=replicas,
            terminating=count_terminating(pods),
            scaling=Scaling(desired=0),
            server_version=self._version,
            providers={ref.path: known for ref, known in zip(refs, providers, strict=True)},
            provider_budgets={
                known.provider.key: self.provider_budget(known.provider)
                for known in providers
                if known.provider and known.provider.spec.budget
            },
            budget=self._budget(OF_SERVICE, service.key, service.spec.spillover.budget),
            runtime=runtime,
            runtime_invalid=invalid,
            accelerator_memory=await self._accelerators.memory(
                service, by_kind["Deployment"], replicas
            ),
            loading=await self._loaders.ask(loader_addresses(pods)),
            claim_missing=claim,
            name_taken_by=self._catalog.name_taken_by(key),
        )
        return self._with_scaling(facts)

    def provider_budget(self, provider: InferenceProvider) -> Budget | None:
        """Return how a provider's budget stands; None: it has none, or nobody knows yet."""
        return self._budget(OF_PROVIDER, provider.key, provider.spec.budget)

    def _budget(self, kind: str, path: str, budget: BudgetSpec | None) -> Budget | None:
        if budget is None:
            return None
        return self._treasurer.stand(f"{kind}/{path}", budget.limits, time.time())

    def _with_scaling(self, facts: Facts) -> Facts:
        """Tell the autoscaler what is, then ask it what it wants."""
        key = facts.service.key
        replicas = _replicas(facts)
        slots = facts.service.max_sequences
        own = _own_metrics(facts)
        self._autoscaler.observe(
            key,
            facts.service,
            replicas,
            slots,
            own,
            offer=offer(facts),
            cloud=first_rates(facts),
            stake=stake(facts),
        )
        health = self._autoscaler.health(key)
        scaling = Scaling(
            desired=self._autoscaler.desired(key),
            decided=self._autoscaler.decided(key),
            active=health.active,
            reason=health.reason,
            message=health.message,
            asked=health.asked,
            withheld=self._autoscaler.withheld(key),
            decisions=tuple(d.to_status() for d in self._autoscaler.decisions(key)),
            traffic=self._autoscaler.traffic(key),
            cost=self._autoscaler.cost(key),
        )
        return replace(facts, scaling=scaling)

    async def _pods(self, service: InferenceService) -> list[Object]:
        """Return all pods that bear the service's label, as the audit lists them."""
        labels = f"{LABEL_SERVICE}={service.metadata.name}"
        return (await self._cluster.list(POD, service.metadata.namespace, labels=labels)).items

    async def _child(self, kind: Kind, service: InferenceService) -> Object | None:
        name = child_name(service.metadata.name)
        return await _or_none(self._cluster.get(kind, service.metadata.namespace, name))

    async def _missing_claim(self, service: InferenceService) -> str:
        """Return the name of a claim that the model needs and that does not exist, else ""."""
        for name in service.claims:
            if not await _or_none(self._cluster.get(PVC, service.metadata.namespace, name)):
                return name
        return ""

    async def _runtime(self, service: InferenceService) -> tuple[InferenceRuntime | None, str]:
        """Return the InferenceRuntime that the service names, and why it cannot be read."""
        if service.runtime in BUNDLED:
            return None, ""
        namespace = service.metadata.namespace
        raw = await _or_none(self._cluster.get(INFERENCE_RUNTIME, namespace, service.runtime))
        if raw is None:
            return None, ""
        try:
            return InferenceRuntime.parse(raw), ""
        except InvalidObject as error:
            return None, str(error)

    async def _provider(self, key: Key) -> ProviderFacts:
        try:
            raw = await _or_none(self._cluster.get(INFERENCE_PROVIDER, key.namespace, key.name))
        except Forbidden:
            return ProviderFacts(None, invalid=f"{key.namespace} is not in watchNamespaces")
        if raw is None:
            return ProviderFacts(None)
        try:
            provider = InferenceProvider.parse(raw)
        except InvalidObject as error:
            return ProviderFacts(None, invalid=str(error))
        report = self._autoscaler.providers().get(key.path)
        if report is None:
            return ProviderFacts(provider)
        return ProviderFacts(
            provider,
            reported=True,
            ready=report.ready,
            reason=report.reason,
            message=report.message,
            unknown_models=report.unknown_models,
        )


async def _or_none(call: Awaitable[Object]) -> Object | None:
    try:
        return await call
    except NotFound:
        return None


def _model_image(service: InferenceService) -> str:
    scheme, _, rest = service.spec.model.uri.partition("://")
    return rest if scheme == "oci" else ""


def _own_metrics(facts: Facts) -> OwnMetrics | None:
    if facts.runtime is None:
        return None
    names = facts.runtime.spec.metrics
    return OwnMetrics(
        namespace=facts.service.metadata.namespace,
        running=names.running or "",
        waiting=names.waiting or "",
        kv_usage=names.kv_usage or "",
    )


def _replicas(facts: Facts) -> Replicas:
    # Another owner's Deployment of that name is not ours to scale.
    deployment = None if "Deployment" in facts.foreign else facts.deployment
    return Replicas(
        desired=deployment["spec"].get("replicas") if deployment else None,
        # A list of pods can be older than the Deployment: nobody who serves loses his place by it.
        placed=max(facts.placed, _ready(deployment)),
        ready=facts.ready,
        unplaceable=capacity.judge(facts).unplaceable,
        terminating=facts.terminating,
        resource_version=deployment["metadata"]["resourceVersion"] if deployment else "",
    )


def _ready(deployment: Object | None) -> int:
    return int(((deployment or {}).get("status") or {}).get("readyReplicas", 0))
