"""Names that other systems see: API group, labels, field managers, ports, headers, reasons.

One file, so that a rename is one change and nothing is spelled in two ways.
"""

from enum import StrEnum

GROUP = "overspill.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Field managers of server-side apply. The autoscaler has its own, so that
# `kubectl get -o yaml --show-managed-fields` shows who wrote the replica count.
OPERATOR_MANAGER = "overspill-operator"
AUTOSCALER_MANAGER = "overspill-autoscaler"

# Recommended labels: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "overspill"
LABEL_SERVICE = f"{GROUP}/service"  # on every child: the InferenceService's name
LABEL_KEY = f"{GROUP}/key"  # on Secrets that hold a client's key
LABEL_SLICE_OF = "kubernetes.io/service-name"  # on an EndpointSlice: its Service
LABEL_SCRAPE = f"{GROUP}/scrape"  # "true" on pods whose /metrics Prometheus should read
# On pods whose metrics are elsewhere than at /metrics.
ANNOTATION_METRICS_PATH = f"{GROUP}/metrics-path"
DEFAULT_METRICS_PATH = "/metrics"

ENGINE_PORT = 8000  # engine pods: API, /health and /metrics
ENGINE_PORT_NAME = "http"
GATEWAY_PORT = 8080  # gateway: the public API
GATEWAY_INTERNAL_PORT = 9090  # gateway: /metrics, /demand, /ledger, /why, /healthz, /readyz
GATEWAY_AUDIENCE = "overspill-gateway"  # of the operator's projected token for it

HEADER_REQUEST_ID = "x-overspill-request-id"
HEADER_DESTINATION = "x-overspill-destination"
HEADER_REASON = "x-overspill-reason"
HEADER_COST = "x-overspill-cost-usd"
HEADER_DATA_POLICY = "x-overspill-data-policy"
HEADER_TOKEN = "x-overspill-token"  # noqa: S105 - for Authorization, which proxies take
DESTINATION_LOCAL = "local"

MAX_NAME_LENGTH = 50  # Services and pods are named after a service with a suffix


class SpillReason(StrEnum):
    """Why a request may leave the cluster; exclusive, the first that holds."""

    REPLICAS_UNAVAILABLE = "ReplicasUnavailable"  # replicas exist, none ready, none starting anew
    COLD_START = "ColdStart"  # none ready, one starting
    CLUSTER_FULL = "ClusterFull"  # a wanted replica cannot be placed for lack of capacity
    MAX_REPLICAS = "MaxReplicas"  # all maxReplicas are placed
    OBJECTIVE_AT_RISK = "ObjectiveAtRisk"  # otherwise


class ConditionType(StrEnum):
    """Condition types; all True when good."""

    READY = "Ready"
    MODEL_READY = "ModelReady"
    REPLICAS_READY = "ReplicasReady"
    SCALING_ACTIVE = "ScalingActive"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    SPILLOVER_READY = "SpilloverReady"
    WITHIN_BUDGET = "WithinBudget"
    PRICES_CURRENT = "PricesCurrent"  # of an InferenceProvider whose models lack prices
