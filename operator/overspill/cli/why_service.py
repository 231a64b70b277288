"""`overspill why SERVICE`: how many replicas were decided on, why, and what others would cost.

All of it is in the service's status, so the right to read the service is enough.
"""

import re
from collections.abc import Iterable, Sequence

from overspill.api.identifiers import DNS_LABEL
from overspill.api.service import InferenceService
from overspill.api.status import DecisionStatus, Weighed
from overspill.cli import show, why_replay
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster, NotFound
from overspill.cluster.kinds import INFERENCE_SERVICE

_SERVICE = re.compile(f"{DNS_LABEL[1:-1]}/{DNS_LABEL[1:-1]}")


def run(target: Target, service: str, replayed: Sequence[str], output: Output) -> None:
    """Print the last decision with what it saw, and those before in a line each.

    :param service: ``namespace/name``.
    :param replayed: ``SETTING=VALUE``: print what would have been decided under these instead.
    :raises CommandError: when there is no such service or setting, or nothing was decided yet.
    """
    settings = why_replay.parse(replayed)
    if not _SERVICE.fullmatch(service):
        text = f"{service} is neither a request (an answer's x-overspill-request-id) nor a service"
        raise CommandError(f"{text} (its name, or namespace/name)", USAGE)
    found = connected(target, lambda cluster: _read(cluster, service))
    decisions = found.status.last_decisions
    if not decisions:
        raise CommandError(f"nothing was decided for {service} yet: see `overspill check`")
    if settings:
        why_replay.run(found, settings, output)
        return
    if output is Output.JSON:
        told = [decision.to_dict() for decision in decisions]
        show.as_json({"service": service, "lastDecisions": told})
        return
    for line in describe(service, decisions[0], decisions[1:]):
        show.line(line)


async def _read(cluster: Cluster, service: str) -> InferenceService:
    namespace, name = service.split("/")
    try:
        return InferenceService.parse(await cluster.get(INFERENCE_SERVICE, namespace, name))
    except NotFound:
        raise CommandError(f"there is no InferenceService {service}; name another") from None


def describe(service: str, last: DecisionStatus, before: Iterable[DecisionStatus]) -> Iterable[str]:
    """Yield what is told to people, line by line."""
    yield f"{service}: {_move(last)} at {last.time} ({last.reason})"
    yield f"  {last.message}"
    if last.weighed:
        yield f"  layers: {_layers(last.weighed, last.replicas_to)}"
        yield from _costs(last.weighed, last.replicas_to)
    seen = ", ".join(f"{name} {value:g}" for name, value in last.inputs.items())
    yield f"  seen: {seen or 'nothing'}"
    for decision in before:
        yield f"before: {_move(decision)} at {decision.time} ({decision.reason})"


def _move(decision: DecisionStatus) -> str:
    if decision.replicas_from == decision.replicas_to:
        return f"replicas stay at {decision.replicas_to}"
    return f"replicas {decision.replicas_from} → {decision.replicas_to}"


def _layers(weighed: Weighed, decided: int) -> str:
    price = "no prices to weigh" if weighed.by_price is None else f"by price {weighed.by_price}"
    return f"by load and objective {weighed.by_demand}, {price}, within the limits {decided}"


def _costs(weighed: Weighed, decided: int) -> Iterable[str]:
    """Yield what each choice would have cost by the hour."""
    choices = (
        (f"with {decided}, as decided", weighed.decided_hourly),
        (f"with {decided + 1}", weighed.one_more_hourly),
        (f"with {decided - 1}", weighed.one_fewer_hourly),
        ("all in the cloud", weighed.all_cloud_hourly),
    )
    known = [f"${dollars:.2f} {what}" for what, dollars in choices if dollars is not None]
    if known:
        yield f"  an hour of this load costs {'; '.join(known)}"
        yield (
            f"  at ${weighed.replica_hourly:.2f} a replica-hour, ${weighed.request_dollars:.2g} a "
            f"request in the cloud, {weighed.boot_seconds:.0f} s until a replica serves"
        )
