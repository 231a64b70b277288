"""Why a request went where it went: the newest decisions of this gateway, each with what it saw.

Kept in memory, the newest 10,000 (less than 1 KB each); numbers only, nothing of what was asked.
"""

import math
import time
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from overspill.api.names import DESTINATION_LOCAL
from overspill.api.values import format_money
from overspill.gateway.provider import told
from overspill.gateway.size import Size
from overspill.gateway.spill import Decision, Facts, Local, Refuse, Spill, reason_to_spill
from overspill.gateway.state import State

KEPT = 10_000


class Record(NamedTuple):
    """One attempt of a request. A tuple, because one is made for every request."""

    request_id: str
    at: float  # seconds since the epoch
    service: str
    size: Size
    decision: Decision
    facts: Facts | None  # None: a slot was free when it came


class Decisions:
    """The ring of records."""

    def __init__(self) -> None:
        self._ring: deque[Record] = deque(maxlen=KEPT)

    def note(
        self, request_id: str, service: str, size: Size, decision: Decision, facts: Facts | None
    ) -> None:
        """Remember what became of an attempt."""
        self._ring.append(Record(request_id, time.time(), service, size, decision, facts))

    def of(self, request_id: str) -> list[Record]:
        """Return the attempts of a request, the oldest first."""
        return [record for record in self._ring if record.request_id == request_id]


def why(decisions: Decisions, state: State, request_id: str) -> dict[str, Any] | None:
    """Return what is known about a request, as values of JSON; None when it is not here any more.

    Where a slot was free at once no provider was looked at: their costs are those of now.
    """
    records = decisions.of(request_id)
    if not records:
        return None
    return {
        "id": request_id,
        "service": records[0].service,
        "attempts": [_attempt(record, state) for record in records],
    }


def _attempt(record: Record, state: State) -> dict[str, Any]:
    facts, decision = record.facts, record.decision
    costs = (
        _costs_now(record, state)
        if facts is None
        else {candidate.provider: candidate.cost for candidate in facts.providers}
    )
    wait = None if math.isinf(decision.expected) else round(decision.expected, 3)
    return {
        "time": datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds"),
        "decided": type(decision).__name__,
        "destination": _destination(decision),
        "why": explain(facts, decision),
        "choices": [
            {"to": DESTINATION_LOCAL, "wait_seconds": wait, "cost_usd": "0"},
            *(
                {"to": to, "wait_seconds": 0, "cost_usd": format_money(c)}
                for to, c in costs.items()
            ),
        ],
        "seen": {} if facts is None else _finite(asdict(facts)),
    }


def _costs_now(record: Record, state: State) -> dict[str, int]:
    service = state.services.get(record.service)
    if service is None:
        return {}
    usable, _ = state.providers_for(service, (), 0, state.clock())
    rates = {key: state.providers[key].rates[ref.model] for key, ref in usable.items()}
    return {key: record.size.cost(rate) for key, rate in rates.items()}


def _destination(decision: Decision) -> str:
    if isinstance(decision, Spill):
        return decision.provider
    return "none" if isinstance(decision, Refuse) else DESTINATION_LOCAL


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return them without infinities, which JSON has not, and with lists for sets."""
    finite = {k: v for k, v in values.items() if not (isinstance(v, float) and math.isinf(v))}
    return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in finite.items()}


def explain(facts: Facts | None, decision: Decision) -> str:
    """Return one sentence with the number that decided."""
    if facts is None:
        return "a slot was free when it came"
    objective = f"the objective is {facts.objective:.2f} s"
    if isinstance(decision, Local):
        return f"it waited {decision.expected:.2f} s for a slot; {objective}"
    seen = f"{_expected(facts, decision.expected)}; {objective}"
    if isinstance(decision, Spill):
        skipped = f"; not to {told(facts.hindered)}" if facts.hindered else ""
        return f"{seen}, and {decision.reason} is in spillover.when{skipped}"
    if isinstance(decision, Refuse):
        seen = f"{seen}; {decision.message}"
    if decision.expected <= facts.objective:
        return seen
    return f"{seen}; {_why_not_spilled(facts)}"


def _expected(facts: Facts, seconds: float) -> str:
    if math.isfinite(seconds):
        return f"a slot was expected {seconds:.2f} s after it came"
    return "no replica was ready" if facts.room else "the queue had no place for it"


def _why_not_spilled(facts: Facts) -> str:
    if not facts.may_leave:
        return "it may not leave the cluster (dataPolicy)"
    if not facts.providers:
        return "no provider could be used" + (f": {why}" if (why := told(facts.hindered)) else "")
    return f"{reason_to_spill(facts)} is not in spillover.when"
