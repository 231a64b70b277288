"""The InferenceService: one model, served under one name.

The pydantic models are the single source of the CRD (see ``crd.py``): descriptions,
defaults, patterns and CEL rules are written here and nowhere else. A field is in this
file only when the operator or the gateway obeys it.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from overspill.api.base import Model, Resource, cel
from overspill.api.budget import BudgetSpec
from overspill.api.engine import (
    AUTO,
    DEFAULT_MAX_SEQUENCES,
    DEFAULT_MAX_SEQUENCES_CUSTOM,
    LLAMACPP,
    VLLM,
    EngineSpec,
)
from overspill.api.identifiers import LABEL_KEY, LabelKey, LabelValue, Namespace, ObjectName
from overspill.api.model import ModelSpec
from overspill.api.names import MAX_NAME_LENGTH, SpillReason
from overspill.api.status import InferenceServiceStatus
from overspill.api.values import Duration, Money, Quantity


class DataPolicy(StrEnum):
    """Whether a prompt may leave the cluster."""

    ALLOWED = "Allowed"
    NEVER = "Never"


@cel(
    "!has(self.memory) || quantity(self.memory).isGreaterThan(quantity('0'))",
    "memory must be more than 0",
)
class AcceleratorSpec(Model):
    """The GPUs of one replica."""

    resource: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            max_length=253,
        ),
    ] = Field("nvidia.com/gpu", description="The extended resource that the device plugin offers.")
    count: int = Field(1, ge=1, le=16, description="Devices per replica.")
    product: LabelValue | None = Field(
        None,
        description="Run only on nodes whose label nvidia.com/gpu.product has this value.",
    )
    memory: Quantity | None = Field(
        None,
        description="Bytes of one device; default: the nodes' label nvidia.com/gpu.memory.",
    )


@cel("quantity(self.cpu).isGreaterThan(quantity('0'))", "cpu must be more than 0")
@cel("quantity(self.memory).isGreaterThan(quantity('0'))", "memory must be more than 0")
class ResourcesSpec(Model):
    """What one replica asks of its node."""

    accelerator: AcceleratorSpec | None = Field(
        None, description="GPUs. Left out: the replica runs on CPUs."
    )
    cpu: Quantity = Field("1", description="CPU request and limit, in cores.")
    memory: Quantity = Field("2Gi", description="Memory request and limit, in bytes.")

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica; 0: it runs on CPUs."""
        return self.accelerator.count if self.accelerator else 0


@cel("duration(self.p95) > duration('0s')", "p95 must be longer than 0s")
class Percentile(Model):
    """An upper bound for 95 of 100 requests."""

    p95: Duration = Field(description="95 of 100 requests stay below this, for example 800ms.")


class ObjectiveSpec(Model):
    """The latency that users are promised."""

    ttft: Percentile = Field(
        default=Percentile(p95="2s"),
        description="Time to first token, from arrival at the gateway.",
    )
    itl: Percentile = Field(default=Percentile(p95="100ms"), description="Inter-token latency.")
    queue_wait: Percentile = Field(
        default=Percentile(p95="1s"),
        description="Wait for a replica. A request that would wait longer may spill.",
    )


class ScalingMode(StrEnum):
    """Who decides how many replicas there are."""

    OBJECTIVE = "Objective"
    MANUAL = "Manual"


# Rules with oldSelf are about changes, those through /scale among them: whoever applies a service
# without replicas, or moves the bounds past a count that somebody has set, is not refused. Nor is a
# change to 1: it is how the default comes back when a manifest no longer has the field.
@cel("self.minReplicas <= self.maxReplicas", "minReplicas must not be greater than maxReplicas")
@cel("duration(self.idleAfter) >= duration('10s')", "idleAfter must be at least 10s")
@cel(
    "self.replicas in [oldSelf.replicas, 1] || self.mode == 'Manual' || oldSelf.mode == 'Manual'",
    "replicas cannot be changed while the autoscaler decides; set mode: Manual to scale by hand, "
    "by an HPA or by KEDA",
)
@cel(
    "self.replicas in [oldSelf.replicas, 1] || self.mode != 'Manual' "
    "|| (self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas)",
    "replicas must be within minReplicas and maxReplicas; change those first, or with it",
)
class ScalingSpec(Model):
    """How many replicas there may be, and what they are for."""

    priority: int = Field(
        0,
        ge=-1000,
        le=1000,
        description="Among services that want the same GPUs while the cluster is full: the higher "
        "gets them first, after services that may not spill and miss their objective.",
    )
    mode: ScalingMode = Field(
        ScalingMode.OBJECTIVE,
        description="Objective: the autoscaler decides how many replicas run. Manual: replicas "
        "does, which a person, an HPA or KEDA sets; the autoscaler only advises.",
    )
    replicas: int = Field(
        1,
        ge=0,
        le=1000,
        description="With mode Manual: replicas that run; where minReplicas and maxReplicas have "
        "moved since it was set, the nearest count within them. What /scale shows and sets.",
    )
    min_replicas: int = Field(
        1, ge=0, le=1000, description="Replicas that always run; 0 lets an idle service stop."
    )
    max_replicas: int = Field(1, ge=1, le=1000, description="Replicas at most.")
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec, description="Latency to keep.")
    idle_after: Duration = Field(
        "10m",
        description="With minReplicas 0: stop the last replica after this long without a request.",
    )

    @property
    def set_count(self) -> int | None:
        """Replicas that somebody has set, within the bounds; None: the autoscaler decides."""
        if self.mode is ScalingMode.OBJECTIVE:
            return None
        return max(self.min_replicas, min(self.replicas, self.max_replicas))


@cel("duration(self.drain) <= duration('1h')", "drain must not be longer than 1h")
class RolloutSpec(Model):
    """How a changed service replaces its replicas."""

    surge: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Extra replicas during a rollout. Default: 0 with an accelerator, else 1.",
    )
    drain: Duration = Field(
        "120s", description="How long a stopping replica may finish the requests it has."
    )


class ProviderRef(Model):
    """One model of one cloud account."""

    name: ObjectName = Field(description="Name of the InferenceProvider.")
    namespace: Namespace | None = Field(
        None, description="Its namespace; it must list ours in allowedNamespaces. Default: our own."
    )
    model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="The provider's name of the model, one of its spec.models."
    )


DEFAULT_WHEN = (
    SpillReason.CLUSTER_FULL,
    SpillReason.OBJECTIVE_AT_RISK,
    SpillReason.COLD_START,
    SpillReason.REPLICAS_UNAVAILABLE,
)


class SpillStrategy(StrEnum):
    """Which of several providers gets a request."""

    ORDERED = "Ordered"
    CHEAPEST = "Cheapest"


class SpilloverSpec(Model):
    """When requests may be answered by a cloud API instead, and by which."""

    when: list[SpillReason] = Field(
        default=list(DEFAULT_WHEN),
        min_length=1,
        max_length=5,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Reasons for which a request may leave. MaxReplicas only where listed: a cap "
        "is not a full cluster.",
    )
    data_policy: DataPolicy = Field(
        DataPolicy.ALLOWED, description="Never: no prompt of this service leaves the cluster."
    )
    strategy: SpillStrategy = Field(
        SpillStrategy.ORDERED,
        description="Ordered: the first provider that can be used. Cheapest: of those that can, "
        "the one where the request is expected to cost least.",
    )
    providers: list[ProviderRef] = Field(
        default_factory=list,
        max_length=8,
        description="Where to spill, in this order. Empty: nothing spills.",
    )
    budget: BudgetSpec | None = Field(
        None,
        description="What this service may spend at providers; beyond it requests stay local. "
        "Default: no limit.",
    )


class CostSpec(Model):
    """What the own hardware costs."""

    gpu_hour: Money = Field(
        "0",
        description="US dollars per accelerator and hour, for example 0.80. With it, replicas are "
        "weighed against the cloud where requests may spill with ObjectiveAtRisk.",
    )


class Toleration(Model):
    """A taint that replicas tolerate; as in a pod."""

    key: str | None = Field(None, max_length=253, description="Taint key.")
    operator: Literal["Equal", "Exists"] | None = Field(None, description="Equal or Exists.")
    value: str | None = Field(None, max_length=63, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect."
    )
    toleration_seconds: int | None = Field(None, ge=0, description="For NoExecute, in seconds.")


Free = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]


def _keys_rule(field: str) -> str:
    """Return a rule for a map's keys, which a schema cannot describe."""
    return f"!has(self.{field}) || self.{field}.all(k, size(k) <= 317 && k.matches('{LABEL_KEY}'))"


# Annotations that loosen a pod's isolation or give it devices and host folders that it does not
# ask for, however its securityContext reads: AppArmor and seccomp of older Kubernetes, CRI-O,
# crun, Kata Containers, the Container Device Interface, plugins of the Node Resource Interface.
CLOSED_ANNOTATIONS = (
    "overspill.dev/",
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "seccomp-profile.kubernetes.cri-o.io",
    "io.kubernetes.cri-o.",
    "run.oci.",
    "io.katacontainers.",
    "cdi.k8s.io/",
    "devices.nri.io/",
    "mounts.nri.io/",
    "net-devices.nri.io/",
)


def _open(key: str) -> str:
    """Refuse a closed annotation, in an object that was stored before there was the rule."""
    if key.startswith(CLOSED_ANNOTATIONS):
        raise ValueError("it changes a pod's isolation or its devices; remove it")
    return key


AnnotationKey = Annotated[LabelKey, AfterValidator(_open)]


@cel(
    "!has(self.annotations) || !self.annotations.exists(k, "
    + " || ".join(f"k.startsWith('{prefix}')" for prefix in CLOSED_ANNOTATIONS)
    + ")",
    "annotations that change a pod's isolation or its devices are refused: "
    + ", ".join(CLOSED_ANNOTATIONS),
)
@cel(
    "!has(self.labels) || !self.labels.exists(k, k.startsWith('overspill.dev/') "
    "|| k.startsWith('app.kubernetes.io/'))",
    "labels under overspill.dev/ and app.kubernetes.io/ are set by Overspill",
)
@cel(_keys_rule("labels"), "labels: a key must be a label key such as team or example.com/team")
@cel(_keys_rule("annotations"), "annotations: a key must be one such as team or example.com/team")
@cel(_keys_rule("nodeSelector"), "nodeSelector: a key must be a label key such as example.com/zone")
class PodSpec(Model):
    """What a replica's pods carry for scheduling; an allow-list of the pod's own fields."""

    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels, for example a Kueue queue name."
    )
    annotations: dict[AnnotationKey, Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict,
        max_length=32,
        description="Annotations, but for those that change a pod's isolation or its devices.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=16, description="Node labels to run on."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, max_length=32, description="Taints to tolerate."
    )
    affinity: Free | None = Field(None, description="As in a pod.")
    priority_class_name: ObjectName | None = Field(None, description="As in a pod.")
    scheduler_name: ObjectName | None = Field(None, description="As in a pod.")
    topology_spread_constraints: list[Free] = Field(
        default_factory=list, max_length=8, description="As in a pod, instead of ours over nodes."
    )
    resource_claims: list[Free] = Field(
        default_factory=list,
        max_length=8,
        description="Dynamic resource allocation: claims of the pod, used by the engine container.",
    )


@cel(
    "!(has(self.resources) && has(self.resources.accelerator) "
    "&& has(self.resources.accelerator.product) && has(self.pod) && has(self.pod.nodeSelector) "
    "&& 'nvidia.com/gpu.product' in self.pod.nodeSelector)",
    "resources.accelerator.product and pod.nodeSelector['nvidia.com/gpu.product'] exclude "
    "each other",
)
@cel(
    "!(self.engine.runtime in ['auto', 'vllm', 'llamacpp']) "
    "|| (has(self.pod.resourceClaims) && size(self.pod.resourceClaims) > 0) "
    "|| self.engine.parallelism.tensor * self.engine.parallelism.pipeline "
    "== (has(self.resources.accelerator) ? self.resources.accelerator.count : 1)",
    "engine.parallelism: tensor x pipeline must be resources.accelerator.count (1 without one)",
)
class InferenceServiceSpec(Model):
    """What the user wants."""

    model: ModelSpec = Field(description="What is served.")
    engine: EngineSpec = Field(default_factory=EngineSpec, description="How it is run.")
    resources: ResourcesSpec = Field(
        default_factory=ResourcesSpec, description="What one replica asks of its node."
    )
    scaling: ScalingSpec = Field(
        default_factory=ScalingSpec, description="How many replicas, for which latency."
    )
    rollout: RolloutSpec = Field(default_factory=RolloutSpec, description="How a change rolls out.")
    spillover: SpilloverSpec = Field(
        default_factory=SpilloverSpec, description="When and where requests spill to the cloud."
    )
    cost: CostSpec = Field(default_factory=CostSpec, description="What the own hardware costs.")
    pod: PodSpec = Field(default_factory=PodSpec, description="Scheduling of the pods.")


@cel(
    f"self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') "
    f"&& size(self.metadata.name) <= {MAX_NAME_LENGTH}",
    f"metadata.name must be a DNS-1035 label (a-z, 0-9, -; first a letter) of at most "
    f"{MAX_NAME_LENGTH} characters: Services are named after it",
)
class InferenceService(Resource):
    """One model served on the own cluster, under a latency objective, spilling when it is full."""

    kind: ClassVar[str] = "InferenceService"
    plural: ClassVar[str] = "inferenceservices"
    singular: ClassVar[str] = "inferenceservice"
    short_name: ClassVar[str] = "infsvc"

    spec: InferenceServiceSpec
    status: InferenceServiceStatus = Field(default_factory=InferenceServiceStatus)

    @property
    def served_name(self) -> str:
        """The model name that clients send."""
        return self.spec.model.served_name or self.metadata.name

    @property
    def runtime(self) -> str:
        """``vllm``, ``llamacpp``, or the name of an InferenceRuntime."""
        runtime = self.spec.engine.runtime
        if runtime != AUTO:
            return runtime
        return VLLM if self.spec.resources.accelerator else LLAMACPP

    @property
    def model_uris(self) -> list[str]:
        """What is served, and the model that drafts for it."""
        speculative = self.spec.engine.speculative
        draft = speculative.draft_model if speculative else None
        return [self.spec.model.uri, *([draft.uri] if draft else [])]

    @property
    def claims(self) -> list[str]:
        """Names of the PersistentVolumeClaims that its models need."""
        rest = [uri.removeprefix("pvc://") for uri in self.model_uris if uri.startswith("pvc://")]
        cache = self.spec.model.cache
        return [claim.partition("/")[0] for claim in rest] + ([cache.claim_name] if cache else [])

    @property
    def max_sequences(self) -> int:
        """Requests that one replica computes at the same time."""
        default = DEFAULT_MAX_SEQUENCES.get(self.runtime, DEFAULT_MAX_SEQUENCES_CUSTOM)
        return self.spec.engine.batching.max_sequences or default
