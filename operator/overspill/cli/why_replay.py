"""`overspill why SERVICE --replay SETTING=VALUE`: the last decisions under another setting."""

from collections.abc import Mapping, Sequence
from typing import Any

from overspill.api.base import InvalidObject
from overspill.api.service import InferenceService
from overspill.api.values import parse_duration
from overspill.autoscaler import replay
from overspill.autoscaler.economics import dollars
from overspill.autoscaler.policy import Decision
from overspill.autoscaler.replay import Setting
from overspill.autoscaler.signals import Rules
from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output

# Fields of the service's spec that decide about replicas, or say what they cost.
SETTINGS = (
    "scaling.minReplicas",
    "scaling.maxReplicas",
    "scaling.objective.ttft.p95",
    "scaling.objective.itl.p95",
    "scaling.objective.queueWait.p95",
    "scaling.idleAfter",
    "engine.batching.maxSequences",
    "resources.accelerator.count",
    "cost.gpuHour",
)


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Return the values by the settings' names.

    :raises CommandError: for a text that is no ``SETTING=VALUE`` of a known setting.
    """
    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise CommandError(f"--replay {name}: no such setting; it can be {known}", USAGE)
        if not sign or not value:
            raise CommandError(f"--replay {name}: give it a value, as in {name}=VALUE", USAGE)
        values[name] = value
    return values


def changed(service: InferenceService, values: Mapping[str, str]) -> InferenceService:
    """Return the service with other settings.

    :raises CommandError: for a value that its field does not take.
    """
    raw: dict[str, Any] = service.to_dict()
    for name, value in values.items():
        *path, field = name.split(".")
        place = raw["spec"]
        for part in path:
            place = place.setdefault(part, {})
        place[field] = value
    try:
        made = InferenceService.parse(raw, unknown="forbid")
    except InvalidObject as error:
        raise CommandError(f"--replay: {error}", USAGE) from error
    scaling = made.spec.scaling
    if scaling.min_replicas > scaling.max_replicas:
        raise CommandError(
            f"--replay: scaling.minReplicas ({scaling.min_replicas}) is more than "
            f"scaling.maxReplicas ({scaling.max_replicas}); change both",
            USAGE,
        )
    objective = scaling.objective
    latencies = (objective.ttft, objective.itl, objective.queue_wait)
    if not all(parse_duration(latency.p95) for latency in latencies):
        raise CommandError("--replay: p95 must be longer than 0s", USAGE)
    return made


def run(service: InferenceService, values: Mapping[str, str], output: Output) -> None:
    """Print each recorded decision, oldest first, and what it would have been.

    :param values: by name, what ``parse`` returned.
    :raises CommandError: for a value that its field does not take.
    """
    before, now = _setting(service), _setting(changed(service, values))
    decisions = map(Decision.from_status, reversed(service.status.last_decisions))
    told = [_compare(decision, before, now) for decision in decisions]
    if output is Output.JSON:
        show.as_json({"service": service.key, "replay": dict(values), "decisions": told})
        return
    settings = ", ".join(f"{name}={value}" for name, value in values.items())
    show.line(f"{service.key} with {settings}, on what each decision saw:")
    for line in map(_line, told):
        show.line(line)


def _setting(service: InferenceService) -> Setting:
    """Take it from a service. Windows are the defaults: no service says what the operator has."""
    spec = service.spec
    rules = Rules.of(service, service.max_sequences)
    return Setting(rules, float(spec.cost.gpu_hour) * spec.resources.accelerators)


def _compare(recorded: Decision, before: Setting, now: Setting) -> dict[str, Any]:
    """Return a decision, and what a replay decides under both settings."""
    same, other = (replay.replay(recorded, before, setting) for setting in (before, now))
    return {
        "time": recorded.to_status().time,
        "replicasFrom": recorded.replicas_from,
        "decided": _outcome(recorded, before),
        "replayedAsItWas": _outcome(same, before),
        "replayed": _outcome(other, now),
    }


def _outcome(decision: Decision, setting: Setting) -> dict[str, Any]:
    hourly = replay.hourly(decision, setting)
    return {
        "replicas": decision.replicas_to,
        "reason": str(decision.reason),
        "dollarsPerHour": None if hourly is None else float(f"{hourly:.4g}"),
    }


def _line(told: Mapping[str, Any]) -> str:
    text = f"{told['time']}  from {told['replicasFrom']}: decided {_words(told['decided'])}; "
    text += f"would be {_words(told['replayed'])}"
    as_it_was = told["replayedAsItWas"]
    if as_it_was["replicas"] != told["decided"]["replicas"]:
        # What went before is not recorded: a window that had not passed, a regret that had grown.
        text += f"; replayed without a change it is {as_it_was['replicas']}"
    return text


def _words(outcome: Mapping[str, Any]) -> str:
    hourly = outcome["dollarsPerHour"]
    cost = "" if hourly is None else f", {dollars(hourly)}/h"
    return f"{outcome['replicas']} ({outcome['reason']}{cost})"
