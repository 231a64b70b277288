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
from overspill.api.provider import InferenceProvider
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
from overspill.controller.facts import Budget, Facts, Fault, Object
from overspill.controller.metrics import Metrics
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
    metrics: Metrics
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
            return await self._provider(key)
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
            capacity.look_again(facts.pods, time.time()),
            self.contests.again(key, time.monotonic()),
            *(_until_anew(b) for b in (facts.budget, *facts.provider_budgets.values())),
        ]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _children(self, key: Key, facts: Facts) -> Facts:
        """Write until nothing is due; return the facts as the writes left them.

        What only a change of the service or of rights can mend is in ``refused``.

        :raises Conflict: when the last step met one.
        """
        conflict: Conflict | None = None
        try:
            for _ in range(STEPS):
                plan = decide(facts, self.settings)
                plan = self.contests.allowed(key, plan, time.monotonic())
                if plan == Plan():
                    return facts
                facts, conflict = await self._carry_out(key, facts, plan)
        except RenderError as error:
            return replace(facts, refused=Fault(Reason.INVALID_SPEC, str(error)))
        except Terminating:
            raise
        except (Invalid, Forbidden) as error:
            # The API server knows rules that the schema does not, and rights can be missing.
            return replace(facts, refused=Fault(Reason.APPLY_REFUSED, str(error)))
        if conflict:
            raise conflict
        return facts

    async def _carry_out(self, key: Key, facts: Facts, plan: Plan) -> tuple[Facts, Conflict | None]:
        """Write what is due; return the children as that left them, and the last conflict.

        A child that changed since it was read is read again, and the others are written all the
        same: the controller of a new Deployment writes to it at the same time as we.
        """
        conflict: Conflict | None = None
        done: list[str] = []
        for obj, path in zip(plan.apply, plan.drifted, strict=True):
            kind = obj["kind"]
            try:
                live: Object | None = await self._apply(obj)
            except Conflict as error:
                conflict, live = error, await self._again(key, kind)
            else:
                self.contests.wrote(key, facts, obj, path, time.monotonic())
                done.append(path)
            facts = replace(facts, children={**facts.children, kind: live})
        if done:
            log.info("applied", service=key.path, fields=done)
        if plan.scale_to is None or facts.deployment is None:
            return facts, conflict
        try:
            version = facts.deployment["metadata"]["resourceVersion"]
            await self.scale.write_scale(key.path, plan.scale_to, version)
            log.info("scaled", service=key.path, replicas=plan.scale_to)
        except Conflict as error:
            conflict = error
            self.metrics.conflicts.labels(DEPLOYMENT.kind).inc()
        # The answer is a Scale; who owns the count is in the Deployment.
        live = await self._again(key, DEPLOYMENT.kind)
        return replace(facts, children={**facts.children, DEPLOYMENT.kind: live}), conflict

    async def _apply(self, obj: Object) -> Object:
        """Apply one child, in the version that was read.

        One that was missing has no version. It takes nothing from other managers: a write that
        comes late must not change the count of a Deployment that another leader made meanwhile.
        """
        kind = CHILDREN[obj["kind"]]
        seen = "resourceVersion" in obj["metadata"]
        try:
            return await self.cluster.apply(kind, obj, manager=OPERATOR_MANAGER, force=seen)
        except Conflict:
            self.metrics.conflicts.labels(kind.kind).inc()
            raise

    async def _again(self, key: Key, kind: str) -> Object | None:
        """Read a child anew, None when there is none."""
        try:
            return await self.cluster.get(CHILDREN[kind], key.namespace, child_name(key.name))
        except NotFound:
            return None

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

    async def _provider(self, key: Key) -> float | None:
        try:
            raw = await self.cluster.get(INFERENCE_PROVIDER, key.namespace, key.name)
        except NotFound:
            self._written.pop(key, None)
            return None
        if raw["metadata"].get("deletionTimestamp"):
            return None
        try:
            provider = InferenceProvider.parse(raw)
        except InvalidObject as error:
            await self._refuse(INFERENCE_PROVIDER, raw, str(error))
            return None
        report = self.autoscaler.providers().get(key.path)
        if report is None:
            return None  # no gateway is connected: what was said last stands
        budget = self.observer.provider_budget(provider)
        old, new = provider.status, status.provider_status(provider, report, budget, time.time())
        since = time.monotonic() - self._written.get(key, self._started)
        wait = status.provider_wait(old, new, since)
        if wait != 0.0:
            return min((s for s in (wait, _until_anew(budget)) if s is not None), default=None)
        await self._write_status(INFERENCE_PROVIDER, raw, new.to_dict())
        self._written[key] = time.monotonic()
        for type_, reason, text in announce.conditions(old.conditions, new.conditions):
            await self.announcer.announce(raw, type_, reason, text)
        return _until_anew(budget)


def _until_anew(budget: Budget | None) -> float | None:
    """Return seconds until a budget that is spent begins anew."""
    if budget is None or budget.full is None:
        return None
    return max(0.0, budget.ends - time.time()) + 1.0


def _conditions(raw: Object) -> list[Condition]:
    items: list[Any] = (raw.get("status") or {}).get("conditions") or []
    return [Condition.model_validate(item, extra="ignore") for item in items]
