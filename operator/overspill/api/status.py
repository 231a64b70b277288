"""The status of an InferenceService: what is."""

from pydantic import Field

from overspill.api.base import Model
from overspill.api.budget import SpentStatus
from overspill.api.conditions import Condition


class CapacityStatus(Model):
    """Whether the cluster has room for what the service wants."""

    full: bool = Field(description="A wanted replica cannot be placed for lack of capacity.")
    reason: str = Field(
        "",
        max_length=64,
        description="Unschedulable, Provisioning (a node is on its way), SchedulingGated, "
        "QuotaExceeded, ClusterShared.",
    )
    message: str = Field("", max_length=1024, description="In the words of whoever said so.")
    since: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="Full since then."
    )


class ModelStatus(Model):
    """How far the loading of a model that is not there yet has come."""

    loaded_bytes: int = Field(0, ge=0, description="Bytes that are there.")
    total_bytes: int | None = Field(None, ge=0, description="Bytes in all, where known.")


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
    gpu_dollars: float = Field(0, description="US dollars of those hours, at cost.gpuHour.")
    spilled_dollars: float = Field(0, description="US dollars of requests that providers answered.")
    dollars_per_hour: float = Field(
        0, description="US dollars of the last hour, own and cloud together."
    )
    dollars_per_m_tok: float | None = Field(
        None, description="US dollars per million tokens, own and cloud together."
    )
    own_dollars_per_m_tok: float | None = Field(
        None, description="The same of own replicas alone, idle hours included."
    )
    cloud_dollars_per_m_tok: float | None = Field(None, description="The same of providers alone.")
    saved_dollars: float | None = Field(
        None,
        description="US dollars that the first listed provider with a price would have cost more, "
        "had it answered all; less than 0 where own replicas cost more.",
    )
    break_even_tokens_per_second: float | None = Field(
        None,
        description="From this rate on one replica is cheaper than that provider, at this mix of "
        "tokens.",
    )


def _dollars(what: str) -> float | None:
    """Return a field for what a count would cost at that moment."""
    return Field(None, ge=0, description=f"US dollars per hour, {what}.")


class Weighed(Model):
    """What each layer of a decision said, and what each other count would have cost then.

    Costs are those of its replicas and, in the cloud, of the work that they leave; only where
    prices are known on both sides.
    """

    by_demand: int = Field(ge=0, description="Replicas that load and objective call for.")
    by_price: int | None = Field(
        None, ge=0, description="Replicas that are cheaper than the cloud."
    )
    replica_hourly: float | None = _dollars("of one replica")
    request_dollars: float | None = Field(
        None, ge=0, description="US dollars of a usual request in the cloud."
    )
    boot_seconds: float | None = Field(None, ge=0, description="Seconds that a replica takes.")
    decided_hourly: float | None = _dollars("of what was decided")
    one_more_hourly: float | None = _dollars("with one replica more")
    one_fewer_hourly: float | None = _dollars("with one replica fewer")
    all_cloud_hourly: float | None = _dollars("with everything in the cloud")


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
    weighed: Weighed | None = Field(
        None, description="What each layer said, and what other counts would have cost."
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
        "SpilloverReady, WithinBudget.",
    )
    replicas: int = Field(0, ge=0, description="Replicas that exist, pending ones too.")
    ready_replicas: int = Field(0, ge=0, description="Replicas that can answer.")
    desired_replicas: int = Field(
        0,
        ge=0,
        description="Replicas that the autoscaler wants; with scaling.mode Manual only its advice.",
    )
    selector: str = Field("", max_length=512, description="Label selector of the replicas' pods.")
    url: str = Field("", max_length=512, description="Base URL for OpenAI clients, in the cluster.")
    model: ModelStatus | None = Field(None, description="While a replica loads its model.")
    capacity: CapacityStatus | None = Field(None, description="Room in the cluster.")
    traffic: TrafficStatus | None = Field(None, description="Requests of the last minute.")
    cost: CostStatus | None = Field(None, description="Spending of the last 24 hours.")
    spent: SpentStatus | None = Field(None, description="What of spillover.budget is spent.")
    last_decisions: list[DecisionStatus] = Field(
        default_factory=list, max_length=MAX_DECISIONS, description="Newest first."
    )
