"""Whether scaling works for a service, and what to do if not: the condition ScalingActive."""

from dataclasses import dataclass

from overspill.api.names import LABEL_SCRAPE
from overspill.autoscaler.readings import Outage

STARTING, UNAVAILABLE = "Starting", "PrometheusUnavailable"  # reasons
ADVISED = "Advised only: with mode Manual, scaling.replicas decides; see desiredReplicas."
GRACE = 60.0  # seconds that a new service's first metrics may take


@dataclass(frozen=True)
class ScalingHealth:
    """Status, reason and message of a condition."""

    active: bool
    reason: str
    message: str = ""
    asked: bool = True  # Prometheus, since this process leads


def judge(
    *,
    outage: Outage | None,
    asked: bool,
    complete: bool,
    known: bool,
    age: float,
    replicas: int,
    advice: bool = False,
) -> ScalingHealth:
    """Return how scaling fares.

    :param outage: of Prometheus, None when it answers.
    :param asked: whether it answers, or was asked in vain.
    :param complete: whether it knows the service through a gateway.
    :param known: whether it has known it before: what it lacks now is lost, not on its way.
    :param age: seconds since we saw the service first.
    :param replicas: decided on last.
    :param advice: whether that is only advice, for somebody else sets the count.
    """
    what = "advised count" if advice else "count"
    holding = f"The {what} holds at {replicas}; requests that wait may still raise it."
    if outage is not None:
        return ScalingHealth(
            active=False,
            reason=UNAVAILABLE,
            # Not since when: the condition has its own time, and ours begins with each process.
            message=f"{outage.message}. {holding} Check that Prometheus runs and that the "
            "operator's prometheus.url is right.",
        )
    if complete:
        return ScalingHealth(active=True, reason="Active", message=ADVISED if advice else "")
    if age < GRACE and not known:
        return ScalingHealth(
            active=True, reason=STARTING, message="Waiting for first metrics.", asked=asked
        )
    return ScalingHealth(
        active=False,
        reason="NoMetrics",
        message="Prometheus answers but has no recent metrics of a gateway for this service. "
        f"{holding} Check that it scrapes the pods with the label {LABEL_SCRAPE}=true every 30 s "
        "or faster.",
    )
