"""One reconcile of one object: read, decide, write what is due. Every trigger leads here.

Each write is idempotent, carries the resourceVersion that was read, and is skipped when it
would change nothing. A new Deployment takes three steps (see ``decide``), each on what the write
before it answered.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from overspill.api.base import InvalidObject
from overspill.api.conditions import Condition
from overspill.api.names import OPERATOR_MANAGER, ConditionType
from overspill.api.provider import InferenceProvider, InferenceProviderStatus
from overspill.api.service import InferenceService
from overspill.autoscaler.loop import Autoscaler
from overspill.cluster import Cluster, Conflict, Forbidden, Invalid, NotFound, Terminating
from overspill.cluster.kinds import DEPLOYMENT, INFERENCE_PROVIDER, INFERENCE_SERVICE, Kind
from overspill.controller import announce, capacity, status
from overspill.controller.announce import Announcer
from overspill.controller.catalog import Key
from overspill.controller.conditions import Verdict
from overspill.controller.contest import Contests
from overspill.controller.decide import Plan, decide, decide_status
from overspill.controller.facts import Facts, Fault, Object
from overspill.controller.observe import CHILDREN, Observer
from overspill.controller.reasons import Reason
from overspill.controller.scaling import ScaleWriter
from overspill.controller.settings import Settings
from overspill.runtimes import RenderError, child_name

log = structlog.get_logger(__name__)

STEPS = 6  # of one reconcile: create, take the count over, give it up, nothing due; two conflicts
LOADING_SECONDS = 5.0  # until we ask a loader again
STUCK_SECONDS = 20.0  # until we look again whether what is in our way is gone


@dataclass
class Reconciler:
    """Brings the cluster to what the objects say."""

    cluster: Cluster  # guarded: writes only while we hold the lease
    observer: Observer
    autoscaler: Autoscaler
    scale: ScaleWriter
    announcer: Announcer
    settings: Settings
    contests: Contests = field(default_factory=Contests)
    # Status writes, in monotonic seconds; after a restart, all count as made just now.
    _written: dict[Key, float] = field(default_factory=dict)
    _lacked: dict[Key, float] = field(default_factory=dict)  # last sign of a lack; likewise
    _started: float = field(default_factory=time.monotonic)

    async def reconcile(self, key: Key) -> float | None:
        """Do what is due for one object; return seconds until it should be looked at again.

        :raises ClusterError: when the API server refuses or does not answer.
        """
        if key.kind == INFERENCE_PROVIDER.kind:
            await self._provider(key)
            return None
        return await self._service(key)

    async def _service(self, key: Key) -> float | None:
        try:
            raw = await self.cluster.get(INFERENCE_SERVICE, key.namespace, key.name)
        except NotFound:
            self._forget(key)
            return None
        if raw["metadata"].get("deletionTimestamp"):
            return None  # its owner references clean up
        self.observer.met(raw)
        try:
            service = InferenceService.parse(raw)
        except InvalidObject as error:
            await self._refuse(INFERENCE_SERVICE, raw, str(error))
            return None
        facts = await self.observer.observe(service)
        try:
            facts = await self._children(key, facts)
        except Terminating:
            return None
        contested = self.contests.open(key, time.monotonic())
        facts = replace(facts, contested={path: c.rival for path, c in contested.items()})
        waits = [
            await self._status(key, raw, facts),
            STUCK_SECONDS if facts.foreign or facts.refused else None,
            LOADING_SECONDS if facts.loading else None,
            self.contests.again(key, time.monotonic()),
        ]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _children(self, key: Key, facts: Facts) -> Facts:
        """Write until nothing is due; return the facts as the writes left them.

        What only a change of the service or of rights can mend is in ``refused``.
        """
        try:
            for left in reversed(range(STEPS)):
                plan = decide(facts, self.settings)
                plan = self.contests.allowed(key, plan, time.monotonic())
                if plan == Plan():
                    break
                try:
                    facts = await self._apply(key, facts, plan)
                except Conflict:
                    if not left:
                        raise
                    facts = await self._deployment_again(facts)
        except RenderError as error:
            return replace(facts, refused=Fault(Reason.INVALID_SPEC, str(error)))
        except Terminating:
            raise
        except (Invalid, Forbidden) as error:
            # The API server knows rules that the schema does not, and rights can be missing.
            return replace(facts, refused=Fault(Reason.APPLY_REFUSED, str(error)))
        return facts

    async def _apply(self, key: Key, facts: Facts, plan: Plan) -> Facts:
        """Carry a plan out; the status speaks of the children as these writes left them."""
        children = dict(facts.children)
        for obj, path in zip(plan.apply, plan.drifted, strict=True):
            kind = obj["kind"]
            children[kind] = await self.cluster.apply(CHILDREN[kind], obj, manager=OPERATOR_MANAGER)
            self.contests.wrote(key, facts, obj, path, time.monotonic())
        if plan.apply:
            log.info("applied", service=key.path, fields=plan.drifted)
        if plan.scale_to is not None and facts.deployment is not None:
            metadata = facts.deployment["metadata"]
            await self.scale.write_scale(key.path, plan.scale_to, metadata["resourceVersion"])
            log.info("scaled", service=key.path, replicas=plan.scale_to)
            # The answer is a Scale; who owns the count is in the Deployment.
            return await self._deployment_again(replace(facts, children=children))
        return replace(facts, children=children)

    async def _deployment_again(self, facts: Facts) -> Facts:
        """Read the Deployment anew: its controller writes to a new one at the same time as we."""
        service = facts.service
        name = child_name(service.metadata.name)
        try:
            live = await self.cluster.get(DEPLOYMENT, service.metadata.namespace, name)
        except NotFound:
            return replace(facts, children={**facts.children, "Deployment": None})
        return replace(facts, children={**facts.children, "Deployment": live})

    async def _status(self, key: Key, raw: Object, facts: Facts) -> float | None:
        moment = time.monotonic()
        found = capacity.judge(facts)
        if found.reason:
            self._lacked[key] = moment
        quiet = moment - self._lacked.get(key, self._started)
        old = facts.service.status
        new = decide_status(facts, found, self.settings, time.time(), quiet)
        wait = status.wait(old, new, moment - self._written.get(key, self._started))
        held = new.capacity is not None and new.capacity.full and quiet > 0
        again = capacity.HOLD_SECONDS - quiet if held else None
        if wait != 0.0:
            return min((s for s in (wait, again) if s is not None), default=None)
        await self._write_status(INFERENCE_SERVICE, raw, new.to_dict())
        self._written[key] = time.monotonic()
        for type_, reason, message in announce.changes(old, new):
            await self.announcer.announce(raw, type_, reason, message)
        return again

    async def _write_status(self, kind: Kind, raw: Object, new: Object) -> None:
        metadata = {name: raw["metadata"][name] for name in ("name", "namespace")}
        metadata["resourceVersion"] = raw["metadata"]["resourceVersion"]
        obj: Object = {"apiVersion": kind.api_version, "kind": kind.kind}
        obj |= {"metadata": metadata, "status": new}
        await self.cluster.apply(kind, obj, manager=OPERATOR_MANAGER, subresource="status")

    async def _refuse(self, kind: Kind, raw: Object, message: str) -> None:
        """Say in the status that an object cannot be used as it is."""
        old = _conditions(raw)
        verdict = Verdict("False", Reason.INVALID_SPEC, message)
        generation = int(raw["metadata"].get("generation", 0))
        new = status.conditions({ConditionType.READY: verdict}, old, generation, time.time())
        others = [c for c in old if c.type != ConditionType.READY]
        if [c for c in old if c.type == ConditionType.READY] == new:
            return
        kept = dict(raw.get("status") or {})
        kept["conditions"] = [c.to_dict() for c in (*new, *others)]
        await self._write_status(kind, raw, kept)
        for type_, reason, text in announce.conditions(old, [*new, *others]):
            await self.announcer.announce(raw, type_, reason, text)

    def _forget(self, key: Key) -> None:
        self.autoscaler.forget(key.path)
        self.observer.forget(key)
        self.contests.forget(key)
        self._written.pop(key, None)
        self._lacked.pop(key, None)

    async def _provider(self, key: Key) -> None:
        try:
            raw = await self.cluster.get(INFERENCE_PROVIDER, key.namespace, key.name)
        except NotFound:
            return
        if raw["metadata"].get("deletionTimestamp"):
            return
        try:
            provider = InferenceProvider.parse(raw)
        except InvalidObject as error:
            await self._refuse(INFERENCE_PROVIDER, raw, str(error))
            return
        report = self.autoscaler.providers().get(key.path)
        if report is None:
            return  # no gateway is connected: what was said last stands
        verdict = Verdict("True" if report.ready else "False", report.reason, report.message)
        old = provider.status
        generation = provider.metadata.generation
        new = InferenceProviderStatus(
            observed_generation=generation,
            conditions=status.conditions(
                {ConditionType.READY: verdict}, old.conditions, generation, time.time()
            ),
        )
        if new != old:
            await self._write_status(INFERENCE_PROVIDER, raw, new.to_dict())
            for type_, reason, text in announce.conditions(old.conditions, new.conditions):
                await self.announcer.announce(raw, type_, reason, text)


def _conditions(raw: Object) -> list[Condition]:
    items: list[Any] = (raw.get("status") or {}).get("conditions") or []
    return [Condition.model_validate(item, extra="ignore") for item in items]
