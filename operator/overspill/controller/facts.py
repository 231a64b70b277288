"""What is known about one service when its next step is decided. Pure values.

Pods are read here once, into the few facts that count: placed, ready, starting, cannot be
placed, faulty. Full (DESIGN: Words) is narrow on purpose: only lack of capacity, in the
scheduler's or the quota's own words.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from overspill.api.budget import Window
from overspill.api.names import ENGINE_PORT
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.api.status import CostStatus, DecisionStatus, TrafficStatus
from overspill.controller.reasons import EngineReason, Reason
from overspill.runtimes.base import selector

Object = dict[str, Any]

# As the runtimes' template calls them. The helpers are init containers: nothing else starts until
# the loader has ended well and the sidecar, which waits for the engine's drain, runs.
ENGINE_CONTAINER, LOADER_CONTAINER, DRAIN_CONTAINER = "engine", "loader", "drain"
_BOOT = ("PodScheduled", "Ready")  # conditions of a pod, at the beginning and the end
LOOP = 2  # restarts of an engine that is not up yet, from which on it is a loop

# The scheduler tries filters in order, resources late: a node that says "Insufficient" has
# passed selectors, affinity and taints, so that capacity is all that is missing there.
_CAPACITY = re.compile(r"Insufficient \S+|Too many pods")
# Of other words before a colon, an engine that is not ours may write any.
_ENGINE_FAULT = re.compile(rf"({'|'.join(EngineReason)}): (.+)", re.DOTALL)
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": ')
_PULL_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CREATE_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True)
class Fault:
    """Why a pod does not come up."""

    reason: str
    message: str
    model: bool = False  # the model's fault, not the engine's


@dataclass(frozen=True)
class Pod:
    """One replica that is not on its way out."""

    name: str
    placed: bool = False
    ready: bool = False
    starting: bool = False  # placed, for the first time, nothing wrong so far
    lacks_capacity: Reason | None = None
    message: str = ""  # the scheduler's
    unplaced_since: float | None = None  # seconds since the epoch, as the scheduler says
    fault: Fault | None = None
    boot: float | None = None  # seconds from its place on a node until it was ready (last)


@dataclass(frozen=True)
class Loading:
    """How far a loader is that runs; all unknown until it has listed the model."""

    loaded: int = 0  # bytes
    total: int | None = None  # bytes
    left: float | None = None  # seconds

    @property
    def begun(self) -> bool:
        """Whether the loader knows what it loads."""
        return bool(self.loaded or self.total)


@dataclass(frozen=True)
class ProviderFacts:
    """One listed provider: the object, and what the gateways say of its key."""

    provider: InferenceProvider | None  # None: there is no such object, or it cannot be read
    invalid: str = ""  # why it cannot be read
    reported: bool = False
    ready: bool = False
    reason: str = ""
    message: str = ""
    unknown_models: frozenset[str] = frozenset()  # that the provider says it does not have


@dataclass(frozen=True)
class Budget:
    """How an account's budget stands in the windows of this moment."""

    spent: Mapping[Window, int]  # nano-dollars, of each window that has a limit
    full: Window | None = None  # the longest one in which a request did not fit any more
    ends: float = 0.0  # of that window, seconds since the epoch


@dataclass(frozen=True)
class Scaling:
    """What the autoscaler says of one service."""

    desired: int  # replicas that are to run
    active: bool = True
    reason: str = ""
    message: str = ""
    asked: bool = True  # Prometheus, so that what it was said to be is no news
    decided: int = 0  # replicas that the autoscaler wants: advice where somebody sets the count
    withheld: str = ""  # why it has less than it wants of a full pool
    decisions: tuple[DecisionStatus, ...] = ()
    traffic: TrafficStatus | None = None
    cost: CostStatus | None = None


@dataclass(frozen=True)
class Facts:
    """One service at one moment."""

    service: InferenceService
    children: Mapping[str, Object | None]  # by kind, as the API server has them
    pods: tuple[Pod, ...]
    scaling: Scaling
    server_version: tuple[int, int]
    terminating: int = 0  # pods that still hold their place and will give it back
    providers: Mapping[str, ProviderFacts] = field(default_factory=dict)  # by "namespace/name"
    # By "namespace/name": budgets of the listed providers; None: the ledger was not read yet.
    provider_budgets: Mapping[str, Budget | None] = field(default_factory=dict)
    budget: Budget | None = None  # of the service; likewise, or it has none
    runtime: InferenceRuntime | None = None  # that engine.runtime names
    runtime_invalid: str = ""  # why that object cannot be read
    accelerator_memory: int | None = None  # bytes of one device, by the nodes' labels
    loading: Loading | None = None  # None: no loader runs
    claim_missing: str = ""  # name of the PersistentVolumeClaim that does not exist
    name_taken_by: str = ""  # an older service of this namespace with the same served name
    refused: Fault | None = None  # why the children could not be rendered or applied
    contested: Mapping[str, str] = field(default_factory=dict)  # our fields: who changes them back

    @property
    def deployment(self) -> Object | None:
        """The Deployment as observed."""
        return self.children.get("Deployment")

    @property
    def foreign(self) -> dict[str, str]:
        """Kind and name of objects that bear a child's name and are not this service's.

        Somebody else's, or left by a deleted service of the same name and on their way out.
        """
        uid = self.service.metadata.uid
        return {
            kind: live["metadata"]["name"]
            for kind, live in self.children.items()
            if live is not None and not _owned_by(live, uid)
        }

    @property
    def ready(self) -> int:
        """Replicas that can answer."""
        return sum(pod.ready for pod in self.pods)

    @property
    def placed(self) -> int:
        """Replicas that have a node."""
        return sum(pod.placed for pod in self.pods)


def _owned_by(live: Object, uid: str) -> bool:
    metadata = live["metadata"]
    owners = [owner.get("uid") for owner in metadata.get("ownerReferences") or []]
    return uid in owners and not metadata.get("deletionTimestamp")


def made_for(raw: Iterable[Object], service: str) -> list[Object]:
    """Return the pods that a controller made as replicas of a service.

    A pod that somebody copied to look into it bears labels of ours and has no controller.
    """
    wanted = selector(service).items()
    return [
        pod
        for pod in raw
        if wanted <= (pod["metadata"].get("labels") or {}).items()
        and any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences") or [])
    ]


def read_pods(
    raw: Iterable[Object], model_image: str, nodes: Mapping[str, str] = MappingProxyType({})
) -> tuple[Pod, ...]:
    """Return the pods that live, by name: those that end are no replicas any more.

    :param model_image: reference of the image volume, "" without one; tells its faults from the
        engine's.
    :param nodes: by name of a pod without a place: what was said of a node that comes for it.
    """
    pods = (_pod(pod, model_image, nodes) for pod in raw if _lives(pod))
    return tuple(sorted(pods, key=lambda p: p.name))


def without_a_place(raw: Iterable[Object]) -> Iterator[Object]:
    """Yield the living pods that the scheduler finds no place for, whatever the cause."""
    for pod in raw:
        scheduled = _conditions(pod).get("PodScheduled", {})
        if _lives(pod) and scheduled.get("reason") == "Unschedulable":
            yield pod


def _lives(pod: Object) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and (
        pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    )


def _conditions(pod: Object) -> dict[str, Object]:
    return {c["type"]: c for c in pod.get("status", {}).get("conditions") or []}


def count_terminating(raw: Iterable[Object]) -> int:
    """Return how many pods are on their way out and still on a node."""
    return sum(
        bool(pod["metadata"].get("deletionTimestamp") and pod.get("spec", {}).get("nodeName"))
        for pod in raw
    )


def loader_addresses(raw: Iterable[Object]) -> list[str]:
    """Return ``host:port`` of the loaders that run."""
    found = []
    for pod in raw:
        status = pod.get("status", {})
        host = status.get("podIP", "")
        runs = any(
            c["name"] == LOADER_CONTAINER and "running" in c.get("state", {})
            for c in status.get("initContainerStatuses") or []
        )
        if host and runs:
            found.append(f"[{host}]:{ENGINE_PORT}" if ":" in host else f"{host}:{ENGINE_PORT}")
    return found


def _pod(raw: Object, model_image: str, nodes: Mapping[str, str]) -> Pod:
    status = raw.get("status", {})
    conditions, name = _conditions(raw), raw["metadata"]["name"]
    ready = conditions.get("Ready", {}).get("status") == "True"
    placed = bool(raw.get("spec", {}).get("nodeName"))
    # Others may have put containers of theirs beside the engine.
    statuses = status.get("containerStatuses") or []
    container: Object = next((c for c in statuses if c["name"] == ENGINE_CONTAINER), {})
    # What ended an engine before it came up again is no fault of the one that is up.
    up = ready or container.get("started")
    fault = None if up else _first_fault([*_before(status), container], model_image)
    lacks, message, since = None, "", None
    if not placed:
        scheduled = conditions.get("PodScheduled", {})
        lacks, message = _lack(scheduled, nodes.get(name, ""))
        since = _seconds(scheduled) if scheduled.get("reason") == "Unschedulable" else None
        if message and not lacks:
            fault = Fault(Reason.NOT_SCHEDULABLE, message)
    first = not container.get("started") and not container.get("restartCount")
    return Pod(
        name=name,
        placed=placed,
        ready=ready,
        starting=placed and not ready and first and not fault,
        lacks_capacity=lacks,
        message=message,
        unplaced_since=since,
        fault=fault,
        boot=_boot(conditions) if ready and not container.get("restartCount") else None,
    )


def _boot(conditions: Mapping[str, Object]) -> float | None:
    """Return how long a ready pod took; longer where its readiness came and went since."""
    placed, ready = (_seconds(conditions.get(c, {})) for c in _BOOT)
    return None if placed is None or ready is None else ready - placed


def _seconds(condition: Object) -> float | None:
    """Return since when a condition is what it is, in seconds since the epoch."""
    since = condition.get("lastTransitionTime")
    return datetime.fromisoformat(since).timestamp() if since else None


def _before(status: Object) -> list[Object]:
    """Return the statuses of our init containers that hold the engine up."""
    return [
        c
        for c in status.get("initContainerStatuses") or []
        if (c["name"] == LOADER_CONTAINER and not c.get("ready"))
        or (c["name"] == DRAIN_CONTAINER and not c.get("started"))
    ]


def _first_fault(containers: Iterable[Object], model_image: str) -> Fault | None:
    faults = (_container_fault(container, model_image) for container in containers)
    return next((fault for fault in faults if fault), None)


def _lack(scheduled: Object, node: str) -> tuple[Reason | None, str]:
    """Return which lack of capacity keeps a pod from being placed, and who says so how.

    A node that comes for it mends whatever the scheduler misses on those that are here, a label
    as well as devices.
    """
    message = scheduled.get("message", "")
    if scheduled.get("reason") == "SchedulingGated":
        return Reason.SCHEDULING_GATED, message or "a scheduling gate (a queue) holds the pod"
    if scheduled.get("reason") != "Unschedulable":
        return None, ""
    if node:
        return Reason.PROVISIONING, f"a node is on its way: {node}"
    return (Reason.UNSCHEDULABLE if _CAPACITY.search(message) else None), message


def _container_fault(container: Object, model_image: str) -> Fault | None:
    waiting = container.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get(
        "terminated", {}
    )
    if reason in _PULL_REASONS:
        return _pull_fault(message or reason, model_image)
    if reason in _CREATE_REASONS:
        # A model volume that cannot be mounted shows here.
        about_model = "model" in message and "volume" in message
        return Fault(Reason.CONTAINER_NOT_CREATED, message or reason, about_model)
    if ended.get("reason") == "OOMKilled":
        who = container["name"]
        return Fault(
            Reason.OUT_OF_MEMORY, f"the {who} passed its memory limit; raise resources.memory"
        )
    told = _ENGINE_FAULT.match(ended.get("message", "").strip())
    if told:
        return Fault(told[1], told[2], model=told[1].startswith("Model"))
    # Between two ends of a loop the engine runs for a while: that mends nothing.
    if reason == "CrashLoopBackOff" or (ended and container.get("restartCount", 0) >= LOOP):
        return Fault(Reason.CRASH_LOOP, _last_words(container, ended))
    return None


def _pull_fault(message: str, model_image: str) -> Fault:
    # The kubelet says "Back-off …" and the error in turn; only the error is worth telling.
    text = _BACK_OFF.sub("", message)
    if model_image and model_image in message:
        return Fault(Reason.MODEL_IMAGE_PULL_FAILED, text, model=True)
    return Fault(Reason.ENGINE_IMAGE_PULL_FAILED, text)


def _last_words(container: Object, ended: Object) -> str:
    lines = ended.get("message", "").strip().splitlines()
    code = ended.get("exitCode", "unknown")
    last = f": {lines[-1]}" if lines else ""
    return f"the {container['name']} ends again and again, exit code {code}{last}"
