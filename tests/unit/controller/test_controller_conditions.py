"""The conditions, case by case."""

from dataclasses import replace
from typing import Any

import pytest
import world

from overspill.api.names import ConditionType as T
from overspill.controller import capacity, conditions
from overspill.controller.facts import Facts, Fault, Pod, ProviderFacts, Scaling
from overspill.controller.reasons import Reason

FULL = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient nvidia.com/gpu")
NO_MODEL = Pod("x", placed=True, fault=Fault("ModelNotFound", "no file", model=True))
CRASHED = Pod("x", placed=True, fault=Fault(Reason.CRASH_LOOP, "exit code 1"))
ZERO = {"minReplicas": 0, "maxReplicas": 2}
PROVIDERS = {"team-a/openai": world.USABLE}


def judge(facts: Facts) -> dict[T, tuple[str, str]]:
    verdicts = conditions.judge(facts, capacity.judge(facts))
    return {type_: (v.status, v.reason) for type_, v in verdicts.items()}


@pytest.mark.parametrize(
    ("facts", "ready", "model", "replicas"),
    [
        (
            world.facts(pods=(world.READY,)),
            ("True", "Serving"), ("True", "Loaded"), ("True", "AllReady"),
        ),
        (
            world.facts(pods=(world.STARTING,)),
            ("False", "Starting"), ("Unknown", "Loading"), ("False", "Starting"),
        ),
        (
            world.facts(desired=3, pods=(world.READY, FULL)),
            ("True", "Serving"), ("True", "Loaded"), ("False", "WaitingForCapacity"),
        ),
        (
            world.facts(pods=(FULL,)),
            ("False", "Unschedulable"), ("Unknown", "Loading"), ("False", "WaitingForCapacity"),
        ),
        (
            world.facts(world.service(scaling=ZERO), desired=0),
            ("True", "ScaledToZero"), ("True", "ScaledToZero"), ("True", "ScaledToZero"),
        ),
        (
            world.facts(world.service(scaling=ZERO), desired=1, pods=(world.STARTING,)),
            ("True", "Starting"), ("Unknown", "Loading"), ("False", "Starting"),
        ),
        (
            world.facts(world.service(scaling=ZERO), desired=1, pods=(FULL,)),
            ("False", "Unschedulable"), ("Unknown", "Loading"), ("False", "WaitingForCapacity"),
        ),
        (
            world.facts(world.service(scaling=ZERO), desired=1, pods=(NO_MODEL,)),
            ("False", "ModelNotFound"), ("False", "ModelNotFound"), ("False", "Starting"),
        ),
        (
            world.facts(pods=(CRASHED,)),
            ("False", "CrashLoop"), ("Unknown", "Loading"), ("False", "CrashLoop"),
        ),
        (
            world.facts(desired=2, pods=(world.READY, NO_MODEL)),
            ("True", "Serving"), ("False", "ModelNotFound"), ("False", "Starting"),
        ),
        (
            world.facts(refused=Fault(Reason.APPLY_REFUSED, "spec.x: bad")),
            ("False", "ApplyRefused"), ("Unknown", "Loading"), ("False", "ApplyRefused"),
        ),
        (
            world.facts(claim_missing="weights"),
            ("False", "ClaimNotFound"), ("False", "ClaimNotFound"), ("False", "Starting"),
        ),
        (
            world.facts(server_version=(1, 34)),
            ("False", "ImageVolumesUnsupported"), ("False", "ImageVolumesUnsupported"),
            ("False", "Starting"),
        ),
        (
            world.facts(pods=(world.READY,), name_taken_by="team-a/elder"),
            ("False", "ServedNameTaken"), ("True", "Loaded"), ("True", "AllReady"),
        ),
    ],
)  # fmt: skip
def test_conditions(facts: Facts, ready: Any, model: Any, replicas: Any) -> None:
    found = judge(facts)
    assert found[T.READY] == ready
    assert found[T.MODEL_READY] == model
    assert found[T.REPLICAS_READY] == replicas


def test_a_zero_that_somebody_set_promises_no_start() -> None:
    by_hand = world.service(scaling={**ZERO, "mode": "Manual", "replicas": 0})
    for subject, words in (
        (world.service(scaling=ZERO), "first request starts"),
        (by_hand, "mode is Manual and scaling.replicas is 0"),
    ):
        verdicts = conditions.judge(world.facts(subject, desired=0), capacity.Capacity())
        assert verdicts[T.READY].reason == Reason.SCALED_TO_ZERO
        assert words in verdicts[T.READY].message
        assert words in verdicts[T.MODEL_READY].message


INT8 = {"quantization": "int8"}
MINE = {"runtime": "mine"}
LENGTH = ["--ctx", "$(CONTEXT_LENGTH)"]


@pytest.mark.parametrize(
    ("facts", "model", "replicas", "words"),
    [
        (
            world.facts(world.service(engine=INT8)),
            "Loading", "OptionUnsupported", "engine.quantization",
        ),
        (
            world.facts(world.service(engine=INT8, resources={"accelerator": {}})),
            "Loading", "OptionUnsupported", "vLLM",
        ),
        (
            world.facts(world.service(engine=MINE)),
            "Loading", "RuntimeNotFound", "InferenceRuntime mine",
        ),
        (
            world.facts(world.service(engine=MINE), runtime_invalid="spec.image: missing"),
            "Loading", "InvalidSpec", "spec.image: missing",
        ),
        (
            world.facts(world.service(engine={**MINE, **INT8}), runtime=world.runtime()),
            "Loading", "OptionUnsupported", "engine.args",
        ),
        (
            world.facts(world.service(engine=MINE), runtime=world.runtime(args=LENGTH)),
            "Loading", "OptionUnsupported", "model.contextLength",
        ),
        (
            world.facts(world.service(engine=MINE), runtime=world.runtime()),
            "Loading", "Starting", "0 of 1",
        ),
        (
            world.facts(world.service(model={"uri": "pvc://m/x.gguf"}, engine={"runtime": "vllm"})),
            "IncompatibleModel", "Starting", "0 of 1",
        ),
        (
            world.facts(world.service(model={"uri": "https://h.example/x.safetensors"})),
            "IncompatibleModel", "Starting", "0 of 1",
        ),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_run_it_is_a_condition(
    facts: Facts, model: str, replicas: str, words: str
) -> None:
    verdicts = conditions.judge(facts, capacity.judge(facts))
    assert verdicts[T.MODEL_READY].reason == model
    assert verdicts[T.REPLICAS_READY].reason == replicas
    assert words in verdicts[T.REPLICAS_READY].message
    assert verdicts[T.READY].status == "False"


def test_what_runs_serves_on_under_an_option_that_its_engine_lacks() -> None:
    found = judge(world.facts(world.service(engine=INT8), pods=(world.READY,)))
    assert found[T.READY] == ("True", "Serving")
    assert found[T.REPLICAS_READY] == ("False", "OptionUnsupported")


@pytest.mark.parametrize(
    ("pods", "when", "ready"),
    [
        ((FULL,), (), ("True", "SpillingOver")),
        ((FULL,), ("ObjectiveAtRisk",), ("False", "Unschedulable")),
        ((world.STARTING,), ("ColdStart",), ("True", "SpillingOver")),
        ((world.STARTING, FULL), ("ColdStart",), ("True", "SpillingOver")),
        ((world.BROKEN,), ("ReplicasUnavailable",), ("True", "SpillingOver")),
        ((world.BROKEN,), ("ColdStart",), ("False", "Starting")),
        ((NO_MODEL,), (), ("True", "SpillingOver")),
    ],
)
def test_a_usable_provider_makes_ready_where_the_reason_is_listed(
    pods: Any, when: Any, ready: Any
) -> None:
    found = judge(world.facts(world.spilling(*when), pods=pods, providers=PROVIDERS))
    assert found[T.READY] == ready


def report(**change: Any) -> dict[str, ProviderFacts]:
    known = {"provider": world.provider(), "reported": True, "ready": True, "reason": "Ready"}
    return {"team-a/openai": ProviderFacts(**{**known, **change})}


@pytest.mark.parametrize(
    ("service", "providers", "expected"),
    [
        (world.service(), {}, ("True", "NotConfigured")),
        (world.spilling(), report(), ("True", "ProvidersReady")),
        (world.spilling(), report(unknown_models={"other"}), ("True", "ProvidersReady")),
        (
            world.spilling(),
            report(unknown_models={world.provider().spec.models[0].name}),
            ("False", "ModelUnknown"),
        ),
        (world.spilling(dataPolicy="Never"), report(), ("True", "DataPolicyNever")),
        (world.spilling(), {}, ("False", "ProviderNotFound")),
        (world.spilling(), report(invalid="spec.type: bad"), ("False", "InvalidSpec")),
        (
            world.spilling(),
            report(provider=world.provider("platform")),
            ("False", "NamespaceNotAllowed"),
        ),
        (
            world.spilling(),
            report(provider=world.provider("platform", allowedNamespaces=["team-a"])),
            ("True", "ProvidersReady"),
        ),
        (
            world.spilling(providers=[{"name": "openai", "model": "other"}]),
            report(),
            ("False", "ModelNotListed"),
        ),
        (
            world.spilling(providers=[{"name": "openai", "model": "free"}]),
            report(),
            ("False", "PriceMissing"),
        ),
        (world.spilling(), report(reported=False), ("Unknown", "NoReport")),
        (
            world.spilling(),
            report(ready=False, reason="SecretNotFound"),
            ("False", "SecretNotFound"),
        ),
    ],
)
def test_spillover(service: Any, providers: Any, expected: Any) -> None:
    assert judge(world.facts(service, providers=providers))[T.SPILLOVER_READY] == expected


@pytest.mark.parametrize(
    ("status", "reason", "stands"),
    [
        ("True", "ProvidersReady", True),
        ("False", "SecretNotFound", True),
        ("False", "PriceMissing", False),  # that we saw ourselves, and no longer see
    ],
)
def test_what_the_gateways_said_stands_until_they_speak_again(
    status: str, reason: str, stands: bool
) -> None:
    old = {"type": "SpilloverReady", "status": status, "reason": reason}
    service = world.spilling()
    before = service.status.model_validate({"conditions": [{**old, "observedGeneration": 1}]})
    same = service.model_copy(update={"status": before})
    silent = report(reported=False)
    found = judge(world.facts(same, providers=silent))[T.SPILLOVER_READY]
    assert found == ((status, reason) if stands else ("Unknown", "NoReport"))
    newer = same.metadata.model_copy(update={"generation": 2})
    changed = same.model_copy(update={"metadata": newer})
    assert judge(world.facts(changed, providers=silent))[T.SPILLOVER_READY][0] == "Unknown"


def test_scaling_says_what_the_autoscaler_says() -> None:
    scaling = Scaling(1, active=False, reason="PrometheusUnavailable", message="away")
    verdict = conditions.judge(world.facts(scaling=scaling), capacity.Capacity())
    assert verdict[T.SCALING_ACTIVE] == conditions.Verdict("False", "PrometheusUnavailable", "away")


def test_how_scaling_fared_stands_until_the_first_metrics_come_again() -> None:
    def told(old: str, *, asked: bool) -> str:
        before = {"type": "ScalingActive", "status": "False", "reason": old, "message": "so"}
        service = world.service(status={"conditions": [before]} if old else None)
        starting = Scaling(1, reason="Starting", message="wait", asked=asked)
        verdicts = conditions.judge(world.facts(service, scaling=starting), capacity.Capacity())
        verdict = verdicts[T.SCALING_ACTIVE]
        assert verdict.message == ("wait" if verdict.reason == "Starting" else "so")
        return verdict.reason

    assert told("", asked=False) == told("", asked=True) == "Starting"
    assert told("NoMetrics", asked=False) == told("NoMetrics", asked=True) == "NoMetrics"
    assert told("PrometheusUnavailable", asked=False) == "PrometheusUnavailable"
    assert told("PrometheusUnavailable", asked=True) == "Starting"


def refusing(message: str, replicas: int = 3) -> dict[str, Any]:
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    metadata = {"name": "chat-engine", "ownerReferences": [{"uid": "u1"}]}
    status = {"conditions": [condition]}
    return {"Deployment": {"metadata": metadata, "spec": {"replicas": replicas}, "status": status}}


def test_an_exceeded_quota_is_a_full_cluster() -> None:
    children = refusing("pods … is forbidden: exceeded quota: gpus")
    facts = world.facts(desired=3, pods=(world.READY,), children=children)
    assert capacity.judge(facts).unplaceable == 2
    assert judge(facts)[T.CAPACITY_AVAILABLE] == ("False", "QuotaExceeded")
    assert judge(facts)[T.REPLICAS_READY] == ("False", "WaitingForCapacity")


def test_a_quota_that_refuses_the_pod_of_a_roll_loosens_the_roll() -> None:
    children = refusing("pods … is forbidden: exceeded quota: gpus", replicas=1)
    facts = world.facts(desired=1, pods=(world.READY,), children=children)
    assert capacity.judge(facts).unplaceable == 1  # or the roll would wait for ever


def test_pods_that_are_not_admitted_are_not_a_full_cluster() -> None:
    children = refusing('pods … is forbidden: violates PodSecurity "restricted"')
    facts = world.facts(desired=1, children=children)
    assert judge(facts)[T.CAPACITY_AVAILABLE] == ("True", "Available")
    assert judge(facts)[T.REPLICAS_READY] == ("False", "ReplicaFailure")


def test_an_object_of_somebody_else_in_the_way_is_named() -> None:
    metadata = {"name": "chat-engine", "ownerReferences": [{"uid": "older"}]}
    facts = world.facts(children={"Service": {"metadata": metadata}})
    verdict = conditions.judge(facts, capacity.judge(facts))[T.REPLICAS_READY]
    assert verdict.reason == "NameConflict"
    assert "Service chat-engine" in verdict.message


@pytest.mark.parametrize(
    ("generation", "replicas", "status", "expected"),
    [
        (2, 2, {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}, "RollingOut"),
        (2, 2, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 0}, "RollingOut"),
        (2, 2, {"observedGeneration": 2, "replicas": 2}, "RollingOut"),
        (2, 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2}, "RollingOut"),
        (2, 2, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}, "AllReady"),
        # only the count falls
        (3, 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}, "AllReady"),
    ],
)
def test_replicas_are_not_all_ready_while_some_run_the_old_spec(
    generation: int, replicas: int, status: dict[str, int], expected: str
) -> None:
    metadata = {"ownerReferences": [{"uid": "u1"}], "generation": generation}
    deployment = {"metadata": metadata, "spec": {"replicas": replicas}, "status": status}
    second = Pod("second", placed=True, ready=True)
    facts = world.facts(desired=2, pods=(world.READY, second), children={"Deployment": deployment})
    found = judge(facts)
    assert found[T.REPLICAS_READY] == ("True" if expected == "AllReady" else "False", expected)
    assert found[T.READY] == ("True", "Serving")


@pytest.mark.parametrize(
    ("facts", "ready", "replicas"),
    [
        (world.facts(pods=(world.READY,)), ("True", "Serving"), ("False", "Contested")),
        (
            world.facts(world.service(scaling=ZERO), desired=0),
            ("True", "ScaledToZero"), ("False", "Contested"),
        ),
        (world.facts(pods=(CRASHED,)), ("False", "CrashLoop"), ("False", "CrashLoop")),
    ],
)  # fmt: skip
def test_a_contested_field_is_told_and_stops_no_request(
    facts: Facts, ready: tuple[str, str], replicas: tuple[str, str]
) -> None:
    facts = replace(facts, contested={"Deployment spec.paused": "kubectl-edit"})
    verdicts = conditions.judge(facts, capacity.judge(facts))
    assert (verdicts[T.READY].status, verdicts[T.READY].reason) == ready
    found = verdicts[T.REPLICAS_READY]
    assert (found.status, found.reason) == replicas
    if found.reason == Reason.CONTESTED:
        assert "Deployment spec.paused of chat-engine" in found.message
        assert "kubectl-edit" in found.message
