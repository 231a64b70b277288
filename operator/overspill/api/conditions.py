"""Conditions as in the Kubernetes API conventions, all True when good.

https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from overspill.api.base import Model

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024  # characters; the scheduler's messages can be much longer


class Condition(Model):
    """One aspect of an object's state."""

    type: str = Field(max_length=64, description="Aspect, in CamelCase.")
    status: Status = Field(description="True when good.")
    reason: str = Field(max_length=64, description="Cause, one CamelCase word of a fixed list.")
    message: str = Field(
        "", max_length=MAX_MESSAGE, description="For people: what, and the remedy."
    )
    observed_generation: int = Field(
        0, ge=0, description="metadata.generation that this speaks of."
    )
    last_transition_time: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When the status changed last."
    )


def timestamp(now: float) -> str:
    """Return RFC 3339 with whole seconds, as Kubernetes writes times.

    :param now: seconds since the epoch.
    """
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(old: list[Condition], new: list[Condition], now: float) -> list[Condition]:
    """Return ``new`` with transition times: kept where the status stayed, ``now`` where not.

    :param old: conditions as observed.
    :param new: conditions as decided; their ``last_transition_time`` is ignored.
    :param now: seconds since the epoch.
    """
    before = {c.type: c for c in old}

    def since(c: Condition) -> str:
        same = before.get(c.type)
        if same and same.status == c.status and same.last_transition_time:
            return same.last_transition_time
        return timestamp(now)

    return [
        c.model_copy(update={"last_transition_time": since(c), "message": c.message[:MAX_MESSAGE]})
        for c in new
    ]


def find(conditions: list[Condition], type_: str) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((c for c in conditions if c.type == type_), None)
