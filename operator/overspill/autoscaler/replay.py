"""What would have been decided on what was seen, had a setting been another. Pure.

A recorded decision has the numbers that it saw and none of what went before. So each is decided
anew by itself, from the count of then, with the policy's own code and as if what was seen had been
so for as long as its windows look back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from overspill.autoscaler.demand import ScalingReason
from overspill.autoscaler.economics import Costs
from overspill.autoscaler.policy import LOOK, Decision, PolicyState, decide
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Demand, Replicas, Rules, Signals

_LIVE = "gateway_"  # before the names of what the gateways said by themselves


@dataclass(frozen=True)
class Setting:
    """What a service asks for, as far as decisions and their costs depend on it."""

    rules: Rules  # without ``costs``: those are recorded with each decision
    replica_hour: float  # US dollars of one replica; 0 where nobody has said


def replay(recorded: Decision, before: Setting, now: Setting) -> Decision:
    """Decide once more under another setting.

    :param recorded: with what it saw, as in the service's status.
    :param before: the setting that it was decided under: how long it must have been idle.
    :param now: the other setting.
    """
    idle = recorded.reason == ScalingReason.IDLE
    span = before.rules.idle_after if idle else now.rules.down_window
    looks = int(span // LOOK) + 2  # one before the window, and one that is the answer
    seen = recorded.inputs
    signals, live, replicas = _signals(seen), _live(seen), _replicas(recorded)
    rules = replace(now.rules, costs=_costs(recorded.weighed, now.replica_hour))
    time = recorded.time - looks * LOOK
    state = PolicyState.start(time, recorded.replicas_from, replicas.ready)
    made = recorded
    for _ in range(looks):
        time += LOOK
        state = replace(state, replicas=recorded.replicas_from)
        made, state = decide(time, state, rules, replicas, signals, live)
    return made


def hourly(decision: Decision, setting: Setting) -> float | None:
    """Return the US dollars per hour of what was decided; None where no price is known.

    With the cloud's part where both sides have a price, else of the own replicas alone.
    """
    weighed = decision.weighed.get("decided_hourly")
    return weighed if weighed is not None else decision.replicas_to * setting.replica_hour or None


def _signals(seen: Mapping[str, float]) -> Signals:
    return Signals(**{f.name: seen[f.name] for f in fields(Signals) if f.name in seen})


def _live(seen: Mapping[str, float]) -> Demand | None:
    told: dict[str, Any] = {
        f.name: seen[_LIVE + f.name] for f in fields(Demand) if _LIVE + f.name in seen
    }
    return Demand(**told) if told else None


def _replicas(recorded: Decision) -> Replicas:
    seen = recorded.inputs
    placed, ready, lacking = (int(seen.get(n, 0)) for n in ("placed", "ready", "unplaceable"))
    probe = recorded.reason == ScalingReason.CLUSTER_FULL_PROBE
    grant = Grant(int(seen["granted"]), probe, "as granted then") if "granted" in seen else None
    return Replicas(placed=placed, ready=ready, unplaceable=lacking, grant=grant)


def _costs(weighed: Mapping[str, float], replica_hour: float) -> Costs | None:
    """Return what both sides cost; None where there was nothing to weigh then, or is not now."""
    if "request_dollars" not in weighed or not replica_hour:
        return None
    return Costs(replica_hour, weighed["request_dollars"], weighed["boot_seconds"])
