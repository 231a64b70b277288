"""Events on our objects: one per change of a condition's reason, one per change of the count.

Core/v1 events with constant reasons; the texts are those of the conditions and decisions. A service
whose pods flap must not fill the API server with them: of one object 25 are written at once and
one more every 5 minutes, as client-go's EventCorrelator has it.
https://pkg.go.dev/k8s.io/client-go/tools/record#EventCorrelator
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from overspill.api.conditions import Condition
from overspill.api.names import API_VERSION, OPERATOR_MANAGER
from overspill.api.status import DecisionStatus, InferenceServiceStatus
from overspill.cluster import Cluster, ClusterError, Fenced, Terminating
from overspill.cluster.kinds import EVENT
from overspill.controller.facts import Object
from overspill.controller.reasons import EventReason, Reason

log = structlog.get_logger(__name__)

_COURSE = (
    Reason.LOADING,
    Reason.STARTING,
    Reason.ROLLING_OUT,
)  # bad for a while, as things take their course
MAX_NOTE = 1024  # characters, the API server's limit
BURST = 25  # events of one object
REFILL_SECONDS = 300.0  # until one more


def changes(old: InferenceServiceStatus, new: InferenceServiceStatus) -> list[tuple[str, str, str]]:
    """Return (type, reason, message) of the events that a change of status calls for."""
    return conditions(old.conditions, new.conditions) + _decisions(
        old.last_decisions, new.last_decisions
    )


def conditions(old: list[Condition], new: list[Condition]) -> list[tuple[str, str, str]]:
    """Return an event for each condition that turned good or bad, or is bad for another reason."""
    before = {c.type: (c.status, c.reason if c.status == "False" else "") for c in old}
    return [
        (
            "Warning" if c.status == "False" and c.reason not in _COURSE else "Normal",
            c.reason,
            f"{c.type} is {c.status}: {c.message or c.reason}",
        )
        for c in new
        if before.get(c.type) != (c.status, c.reason if c.status == "False" else "")
        and (c.status == "False" or c.type in before)
    ]


def _decisions(old: list[DecisionStatus], new: list[DecisionStatus]) -> list[tuple[str, str, str]]:
    seen = {(d.time, d.replicas_to) for d in old}
    return [
        (
            "Normal",
            EventReason.SCALED,
            f"{d.replicas_from} → {d.replicas_to} replicas, {d.reason}: {d.message}",
        )
        for d in reversed(new)
        if (d.time, d.replicas_to) not in seen and d.replicas_from != d.replicas_to
    ]


@dataclass
class Allowance:
    """How many events each object may still have: a token bucket. Pure.

    Memory: a number for each object that had an event in the last two hours.
    """

    # By uid: when the object's events are made up for, in monotonic seconds.
    _spent: dict[str, float] = field(default_factory=dict)
    _swept: float = float("-inf")

    def take(self, uid: str, now: float) -> bool:
        """Whether an object may have one more event now; then it counts.

        :param now: monotonic seconds.
        """
        if now >= self._swept + REFILL_SECONDS:
            self._spent = {k: until for k, until in self._spent.items() if until > now}
            self._swept = now
        until = max(self._spent.get(uid, now), now)
        if until - now > (BURST - 1) * REFILL_SECONDS:
            return False
        self._spent[uid] = until + REFILL_SECONDS
        return True


class Announcer:
    """Writes events; one that cannot be written, or is one too many, is logged and dropped."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        """Write through a guarded cluster, in the name of one operator pod."""
        self._cluster = cluster
        self._identity = identity
        self._allowance = Allowance()

    async def announce(self, raw: Object, type_: str, reason: str, message: str) -> None:
        """Write one event on an object.

        :param raw: the custom resource.
        :param type_: Normal or Warning.
        """
        metadata = raw["metadata"]
        if not self._allowance.take(metadata["uid"], time.monotonic()):
            log.info("event dropped", reason=reason, error="too many for this object")
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "generateName": f"{metadata['name']}.",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": raw["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": type_,
            "reason": reason,
            "message": message[:MAX_NOTE],
            "action": reason,
            "source": {"component": OPERATOR_MANAGER},
            "reportingComponent": OPERATOR_MANAGER,
            "reportingInstance": self._identity,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.create(EVENT, event, manager=OPERATOR_MANAGER)
        except Fenced:
            raise
        except Terminating:
            return
        except ClusterError as error:
            log.warning("event dropped", reason=reason, error=str(error))
