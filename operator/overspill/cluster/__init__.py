"""The only Kubernetes I/O: one connection, plain dicts, translated errors, a lease."""

from overspill.cluster.backoff import backoff
from overspill.cluster.client import Cluster, Listing
from overspill.cluster.errors import (
    ClusterError,
    Conflict,
    Expired,
    Fenced,
    Forbidden,
    Invalid,
    NotConfigured,
    NotFound,
    Terminating,
    TimedOut,
    Unavailable,
)
from overspill.cluster.kinds import Kind
from overspill.cluster.lease import Leader
from overspill.cluster.watching import Event

__all__ = [
    "Cluster",
    "ClusterError",
    "Conflict",
    "Event",
    "Expired",
    "Fenced",
    "Forbidden",
    "Invalid",
    "Kind",
    "Leader",
    "Listing",
    "NotConfigured",
    "NotFound",
    "Terminating",
    "TimedOut",
    "Unavailable",
    "backoff",
]
