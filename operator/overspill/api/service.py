"""The InferenceService: one model, served under one name.

The pydantic models are the single source of the CRD (see ``crd.py``): descriptions,
defaults, patterns and CEL rules are written here and nowhere else. A field is in this
file only when the operator or the gateway obeys it.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from overspill.api.base import Model, Resource, cel
from overspill.api.conditions import Condition
from overspill.api.names import MAX_NAME_LENGTH, SpillReason
from overspill.api.values import Duration, Money, Quantity

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Namespace = Annotated[str, Field(pattern=DNS_LABEL, max_length=63)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
# A model name as clients send it. No slash: "namespace/name" addresses a service exactly.
ServedName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$", max_length=100)
]
# oci://registry/repository[:tag][@sha256:…]  or  pvc://claim[/path/inside]
ModelURI = Annotated[
    str,
    Field(
        pattern=r"^(oci://[a-z0-9][A-Za-z0-9._:/@-]*[A-Za-z0-9]"
        r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)$",
        max_length=500,
    ),
]
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]


class Runtime(StrEnum):
    """Engines that can serve a model."""

    LLAMACPP = "llamacpp"


# Slots share the KV cache and the cores; beyond four a CPU only answers all of them slower.
DEFAULT_MAX_SEQUENCES = {Runtime.LLAMACPP: 4}


class DataPolicy(StrEnum):
    """Whether a prompt may leave the cluster."""

    ALLOWED = "Allowed"
    NEVER = "Never"


class ModelSpec(Model):
    """What is served."""

    uri: ModelURI = Field(
        description="Where the weights are: oci://image (an OCI image or artifact, mounted "
        "read-only; Kubernetes 1.35 or newer) or pvc://claim/path (a GGUF file or a folder with "
        "one, on a PersistentVolumeClaim of this namespace)."
    )
    served_name: ServedName | None = Field(
        None, description="The model name that clients send. Default: the object's name."
    )
    context_length: int | None = Field(
        None,
        ge=128,
        le=10_000_000,
        description="Tokens of prompt plus answer that one request may use. Default: the model's.",
    )


class BatchingSpec(Model):
    """Continuous batching."""

    max_sequences: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Requests that one replica computes at the same time. Default: 4 (llamacpp).",
    )
    max_batched_tokens: int | None = Field(
        None,
        ge=32,
        le=1_048_576,
        description="Tokens that one engine step computes at most. Default: the engine's own.",
    )


class KVCacheSpec(Model):
    """The key-value cache of attention."""

    prefix_caching: bool = Field(
        True,
        description="Keep the KV cache of prompts and reuse it where a prompt begins alike.",
    )


class EngineSpec(Model):
    """How the model is run, in words that hold for every engine."""

    runtime: Runtime = Field(Runtime.LLAMACPP, description="The engine.")
    batching: BatchingSpec = Field(default_factory=BatchingSpec, description="Continuous batching.")
    kv_cache: KVCacheSpec = Field(default_factory=KVCacheSpec, description="The KV cache.")
    args: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default_factory=list,
        max_length=64,
        description="Options of the engine itself, name=value, applied last.",
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


@cel("quantity(self.cpu).isGreaterThan(quantity('0'))", "cpu must be more than 0")
@cel("quantity(self.memory).isGreaterThan(quantity('0'))", "memory must be more than 0")
class ResourcesSpec(Model):
    """What one replica asks of its node."""

    accelerator: AcceleratorSpec | None = Field(
        None, description="GPUs. Left out: the replica runs on CPUs."
    )
    cpu: Quantity = Field("1", description="CPU request and limit, in cores.")
    memory: Quantity = Field("2Gi", description="Memory request and limit, in bytes.")


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


@cel("self.minReplicas <= self.maxReplicas", "minReplicas must not be greater than maxReplicas")
@cel("duration(self.idleAfter) >= duration('10s')", "idleAfter must be at least 10s")
class ScalingSpec(Model):
    """How many replicas there may be, and what they are for."""

    min_replicas: int = Field(
        1, ge=0, le=1000, description="Replicas that always run; 0 lets an idle service stop."
    )
    max_replicas: int = Field(1, ge=1, le=1000, description="Replicas at most.")
    objective: ObjectiveSpec = Field(
        default_factory=ObjectiveSpec, description="Latency to keep at the lowest cost."
    )
    idle_after: Duration = Field(
        "10m",
        description="With minReplicas 0: stop the last replica after this long without a request.",
    )


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
    providers: list[ProviderRef] = Field(
        default_factory=list,
        max_length=8,
        description="Where to spill, in this order. Empty: nothing spills.",
    )


class CostSpec(Model):
    """What the own hardware costs."""

    gpu_hour: Money = Field(
        "0", description="US dollars per accelerator and hour, for example 0.80."
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
    annotations: dict[LabelKey, Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict, max_length=32, description="Annotations."
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


class CapacityStatus(Model):
    """Whether the cluster has room for what the service wants."""

    full: bool = Field(description="A wanted replica cannot be placed for lack of capacity.")
    reason: str = Field(
        "", max_length=64, description="Unschedulable, SchedulingGated, QuotaExceeded."
    )
    message: str = Field("", max_length=1024, description="In the scheduler's own words.")
    since: str = Field(
        "", json_schema_extra={"format": "date-time"}, description="Full since then."
    )


class TrafficStatus(Model):
    """What the service does now; averages over the last minute."""

    requests_per_second: float = Field(0, description="Requests that arrived, per second.")
    spilled_percent: float = Field(0, description="Of 100 requests, answered by a provider.")
    ttft_p95_seconds: float | None = Field(
        None, description="Time to first token of local answers."
    )


class CostStatus(Model):
    """What the last 24 hours took, from Prometheus."""

    gpu_hours: float = Field(0, description="Accelerator-hours of placed replicas.")
    spilled_dollars: float = Field(0, description="US dollars of requests that providers answered.")


class DecisionStatus(Model):
    """One decision of the autoscaler, with what it saw."""

    time: str = Field(json_schema_extra={"format": "date-time"}, description="When.")
    replicas_from: int = Field(ge=0, description="Replicas wanted before.")
    replicas_to: int = Field(ge=0, description="Replicas wanted since.")
    reason: str = Field(max_length=64, description="One CamelCase word of a fixed list.")
    message: str = Field("", max_length=512, description="The same with its numbers.")
    inputs: dict[str, float] = Field(
        default_factory=dict, description="Signals by name; one that had no data is left out."
    )


MAX_DECISIONS = 10


class InferenceServiceStatus(Model):
    """What is."""

    observed_generation: int = Field(0, ge=0, description="metadata.generation last acted upon.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        description="Ready, ModelReady, ReplicasReady, ScalingActive, CapacityAvailable, "
        "SpilloverReady.",
    )
    replicas: int = Field(0, ge=0, description="Replicas that exist, pending ones too.")
    ready_replicas: int = Field(0, ge=0, description="Replicas that can answer.")
    desired_replicas: int = Field(0, ge=0, description="Replicas that the autoscaler wants.")
    selector: str = Field("", max_length=512, description="Label selector of the replicas' pods.")
    url: str = Field("", max_length=512, description="Base URL for OpenAI clients, in the cluster.")
    capacity: CapacityStatus | None = Field(None, description="Room in the cluster.")
    traffic: TrafficStatus | None = Field(None, description="Requests of the last minute.")
    cost: CostStatus | None = Field(None, description="Spending of the last 24 hours.")
    last_decisions: list[DecisionStatus] = Field(
        default_factory=list, max_length=MAX_DECISIONS, description="Newest first."
    )


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
    def max_sequences(self) -> int:
        """Requests that one replica computes at the same time."""
        engine = self.spec.engine
        return engine.batching.max_sequences or DEFAULT_MAX_SEQUENCES[engine.runtime]
