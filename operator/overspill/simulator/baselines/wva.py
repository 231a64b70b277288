"""llm-d's Workload Variant Autoscaler, version 1: saturation of KV caches and engine queues.

https://github.com/llm-d/llm-d-workload-variant-autoscaler, docs/saturation-analyzer.md: a replica
is saturated at 80 % of its KV cache or five waiting requests, each at its highest of the last
minute. Of those that are not, the spare is averaged: one replica more when less than 10 % of the KV
cache or three requests are spare and none is pending; one fewer when both would still be spare
with the same load on one replica fewer. Looked at every 60 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

KV_THRESHOLD, QUEUE_THRESHOLD = 0.8, 5.0
SPARE_KV, SPARE_QUEUE = 0.1, 3.0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """One replica at its highest of the last minute."""

    kv_usage: float  # 0 to 1
    waiting: float  # requests


def desired(engines: Sequence[EngineLoad], pending: int, kv_threshold: float = KV_THRESHOLD) -> int:
    """Return the wanted count.

    :param engines: the ready replicas.
    :param pending: replicas that were ordered and are not ready.
    """
    count = len(engines) + pending
    calm = [e for e in engines if e.kv_usage < kv_threshold and e.waiting < QUEUE_THRESHOLD]
    if not calm:
        return count if pending else count + 1
    kv, waiting = sum(e.kv_usage for e in calm), sum(e.waiting for e in calm)
    if not _spare(kv, waiting, len(calm), kv_threshold):
        return count if pending else count + 1
    fewer = len(calm) - 1
    if not pending and fewer and _spare(kv, waiting, fewer, kv_threshold):
        return count - 1
    return count


def _spare(kv: float, waiting: float, replicas: int, kv_threshold: float) -> bool:
    """Whether so many replicas would have both to spare."""
    kv_left, queue_left = kv_threshold - kv / replicas, QUEUE_THRESHOLD - waiting / replicas
    return kv_left >= SPARE_KV and queue_left >= SPARE_QUEUE
