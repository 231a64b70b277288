"""Every reason that a condition or an event of ours can bear; documented, never renamed.

Reasons of the autoscaler and of providers come from their own lists.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Reasons of conditions, one CamelCase word each."""

    # Ready
    SERVING = "Serving"  # a local replica is ready
    SCALED_TO_ZERO = "ScaledToZero"  # none runs, by design; the first request starts one
    STARTING = "Starting"  # replicas come up
    SPILLING_OVER = "SpillingOver"  # no local replica, but providers answer
    INVALID_SPEC = "InvalidSpec"
    SERVED_NAME_TAKEN = "ServedNameTaken"

    # ModelReady
    LOADED = "Loaded"
    LOADING = "Loading"
    MODEL_IMAGE_PULL_FAILED = "ModelImagePullFailed"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    IMAGE_VOLUMES_UNSUPPORTED = "ImageVolumesUnsupported"
    INCOMPATIBLE_MODEL = "IncompatibleModel"  # with the engine

    # ReplicasReady
    ALL_READY = "AllReady"
    ROLLING_OUT = "RollingOut"  # enough are ready, but some still run what the spec said before
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    OPTION_UNSUPPORTED = "OptionUnsupported"  # by the engine
    APPLY_REFUSED = "ApplyRefused"  # the API server refuses a child
    NAME_CONFLICT = "NameConflict"  # an object of a child's name belongs to somebody else
    CONTESTED = "Contested"  # somebody keeps changing a field of a child back
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    NOT_SCHEDULABLE = "NotSchedulable"  # for a cause that more capacity would not mend
    REPLICA_FAILURE = "ReplicaFailure"  # pods are not admitted
    ENGINE_IMAGE_PULL_FAILED = "EngineImagePullFailed"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOP = "CrashLoop"

    # CapacityAvailable
    AVAILABLE = "Available"
    UNSCHEDULABLE = "Unschedulable"
    PROVISIONING = "Provisioning"  # a node is on its way for the pod
    SCHEDULING_GATED = "SchedulingGated"
    QUOTA_EXCEEDED = "QuotaExceeded"
    CLUSTER_SHARED = "ClusterShared"  # what there is does more for other services

    # SpilloverReady; a provider's own faults are in the gateway's list
    NOT_CONFIGURED = "NotConfigured"
    DATA_POLICY_NEVER = "DataPolicyNever"
    PROVIDERS_READY = "ProvidersReady"
    PROVIDER_NOT_FOUND = "ProviderNotFound"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    MODEL_NOT_LISTED = "ModelNotListed"
    PRICE_MISSING = "PriceMissing"
    NO_REPORT = "NoReport"  # no gateway has said yet whether it has the key

    # WithinBudget; NotConfigured as above
    ROOM_LEFT = "RoomLeft"
    BUDGET_SPENT = "BudgetSpent"  # a request did not fit any more; until the window ends
    PROVIDER_BUDGET_SPENT = "ProviderBudgetSpent"  # of every provider that is listed
    LEDGER_NOT_READ = "LedgerNotRead"

    # PricesCurrent; PriceMissing as above
    LIST_PRICES = "ListPrices"  # of the bundled list, which is new enough
    LIST_PRICES_OLD = "ListPricesOld"


class EventReason(StrEnum):
    """Reasons of events beside those of conditions."""

    SCALED = "Scaled"


class EngineReason(StrEnum):
    """Reasons with which our engine and its loader end, by their last line ``Reason: text``.

    The classes of overspill.engine.errors and overspill.engine.fetch, which this layer does not
    import.
    """

    INVALID_OPTIONS = "InvalidOptions"
    ENGINE_CRASHED = "EngineCrashed"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_AMBIGUOUS = "ModelAmbiguous"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    MODEL_DOES_NOT_FIT = "ModelDoesNotFit"
    MODEL_FORBIDDEN = "ModelForbidden"
    MODEL_DIGEST_MISMATCH = "ModelDigestMismatch"
    MODEL_SECRET_REFUSED = "ModelSecretRefused"  # noqa: S105 - no password
    MODEL_SOURCE_UNREACHABLE = "ModelSourceUnreachable"
    MODEL_DISK_FULL = "ModelDiskFull"
    MODEL_PATH_UNSAFE = "ModelPathUnsafe"
    MODEL_VOLUME_FAILED = "ModelVolumeFailed"
