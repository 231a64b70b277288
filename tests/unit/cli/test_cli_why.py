"""`overspill why`: asks every gateway, and says what it may not know."""

import json

import pytest
from cli_world import Command, World

from overspill.cluster.kinds import INFERENCE_SERVICE, POD

SYSTEM = "overspill-system"
ID = "0123456789abcdef" * 2
KNOWN = {
    "id": ID,
    "service": "team-a/chat",
    "attempts": [
        {
            "time": "2026-11-30T12:00:00.000+00:00",
            "decided": "Spill",
            "destination": "team-a/cloud",
            "why": "a slot was expected 3.20 s after it came; the objective is 1.00 s, and "
            "ClusterFull is in spillover.when",
            "choices": [
                {"to": "local", "wait_seconds": 3.2, "cost_usd": "0"},
                {"to": "team-a/cloud", "wait_seconds": 0, "cost_usd": "0.0021"},
            ],
            "seen": {"slots": 4},
        }
    ],
}


@pytest.fixture
def gateways(world: World) -> World:
    """Two gateways, of which the second has seen the request, and another program's pod."""
    labels = {"app.kubernetes.io/instance": "overspill", "app.kubernetes.io/component": "gateway"}
    for name in ("gw-a", "gw-b"):
        world.put(POD, name, SYSTEM, metadata={"labels": labels})
    world.put(POD, "other", SYSTEM)
    world.why = {"gw-b": {ID: KNOWN}}
    return world


def test_the_gateway_that_knows_is_found(gateways: World, overspill: Command) -> None:
    told = overspill("why", ID).stdout.splitlines()
    assert told == [
        f"{ID}, team-a/chat",
        f"2026-11-30T12:00:00.000+00:00  team-a/cloud: {KNOWN['attempts'][0]['why']}",
        "    local: wait 3.20 s, $0",
        "    team-a/cloud: wait 0.00 s, $0.0021",
    ]
    assert json.loads(overspill("why", ID, "-o", "json").stdout) == KNOWN


def test_what_no_gateway_remembers_is_in_a_log(gateways: World, overspill: Command) -> None:
    gateways.why = {}
    forgotten = overspill("why", ID)
    assert forgotten.returncode == 1
    assert "none of 2 gateways remembers" in forgotten.stderr


def test_the_rights_that_it_takes_are_named(gateways: World, overspill: Command) -> None:
    gateways.forbidden.add(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts")
    refused = overspill("why", ID)
    assert refused.returncode == 3
    assert "create serviceaccounts/token" in refused.stderr


def test_what_is_neither_is_wrong_usage(world: World, overspill: Command) -> None:
    refused = overspill("why", "../metrics")
    assert refused.returncode == 2
    assert "x-overspill-request-id" in refused.stderr


WEIGHED = {
    "byDemand": 3,
    "byPrice": 2,
    "replicaHourly": 0.8,
    "requestDollars": 0.00056,
    "bootSeconds": 40,
    "decidedHourly": 2.02,
    "oneMoreHourly": 2.4,
    "oneFewerHourly": 2.65,
    "allCloudHourly": 3.73,
}
DECISIONS = [
    {
        "time": "2026-11-30T12:00:00Z",
        "replicasFrom": 3,
        "replicasTo": 2,
        "reason": "CloudCheaper",
        "message": "a replica costs $0.80/h; …: replicas 3 → 2",
        "inputs": {"arrivals_rate": 2.0, "ready": 3},
        "weighed": WEIGHED,
    },
    {
        "time": "2026-11-30T11:00:00Z",
        "replicasFrom": 3,
        "replicasTo": 3,
        "reason": "WithinObjective",
    },
]


def test_a_services_count_is_told_with_what_others_would_cost(
    world: World, overspill: Command
) -> None:
    spec = {"model": {"uri": "oci://models/small"}}
    status = {"lastDecisions": DECISIONS}
    world.put(INFERENCE_SERVICE, "chat", "team-a", spec=spec, status=status)
    world.put(INFERENCE_SERVICE, "new", "team-a", spec=spec)
    assert overspill("why", "chat", "-n", "team-a").stdout.splitlines() == [
        "team-a/chat: replicas 3 → 2 at 2026-11-30T12:00:00Z (CloudCheaper)",
        "  a replica costs $0.80/h; …: replicas 3 → 2",
        "  layers: by load and objective 3, by price 2, within the limits 2",
        "  an hour of this load costs $2.02 with 2, as decided; $2.40 with 3; "
        "$2.65 with 1; $3.73 all in the cloud",
        "  at $0.80 a replica-hour, $0.00056 a request in the cloud, 40 s until a replica serves",
        "  seen: arrivals_rate 2, ready 3",
        "before: replicas stay at 3 at 2026-11-30T11:00:00Z (WithinObjective)",
    ]
    told = json.loads(overspill("why", "team-a/chat", "-o", "json").stdout)
    assert told["service"] == "team-a/chat"
    assert told["lastDecisions"][0]["weighed"] == WEIGHED
    for name, words in (("none", "there is no InferenceService"), ("new", "nothing was decided")):
        refused = overspill("why", f"team-a/{name}")
        assert (refused.returncode, words in refused.stderr) == (1, True)


CROWDED = {
    "time": "2026-11-30T11:00:00Z",
    "replicasFrom": 2,
    "replicasTo": 6,
    "reason": "LoadAboveCapacity",
    "inputs": {
        "gateways": 1, "arrivals_rate": 1, "in_flight": 17, "spilled_in_flight": 0, "queued": 0,
        "residence": 17, "local_rate": 1, "placed": 2, "ready": 2, "unplaceable": 0, "load": 17,
    },
}  # fmt: skip


def test_a_replay_tells_what_another_setting_would_have_decided_and_cost(
    world: World, overspill: Command
) -> None:
    spec = {
        "model": {"uri": "oci://models/small"},
        "engine": {"batching": {"maxSequences": 4}},
        "resources": {"accelerator": {"count": 2}},
        "scaling": {"maxReplicas": 8},
        "cost": {"gpuHour": "0.8"},
    }
    status = {"lastDecisions": [{**CROWDED, "replicasTo": 5, "reason": "X"}, CROWDED]}
    world.put(INFERENCE_SERVICE, "chat", "team-a", spec=spec, status=status)
    fewer = ("why", "team-a/chat", "--replay", "scaling.maxReplicas=3")
    assert overspill(*fewer).stdout.splitlines() == [
        "team-a/chat with scaling.maxReplicas=3, on what each decision saw:",
        "2026-11-30T11:00:00Z  from 2: decided 6 (LoadAboveCapacity, $9.60/h); "
        "would be 3 (MaxReplicas, $4.80/h)",
        "2026-11-30T11:00:00Z  from 2: decided 5 (X, $8.00/h); would be 3 (MaxReplicas, $4.80/h); "
        "replayed without a change it is 6",
    ]
    told = json.loads(overspill(*fewer, "--replay", "cost.gpuHour=2", "-o", "json").stdout)
    assert told["decisions"][0]["replayed"] == {
        "replicas": 3, "reason": "MaxReplicas", "dollarsPerHour": 12.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("scaling.maxReplica=3", "--replay scaling.maxReplica: no such setting; it can be"),
        ("model.uri=hf://a/b", "--replay model.uri: no such setting"),
        ("scaling.maxReplicas", "scaling.maxReplicas=VALUE"),
        ("scaling.maxReplicas=many", "spec.scaling.maxReplicas"),
        ("scaling.idleAfter=soon", "spec.scaling.idleAfter"),
        ("scaling.objective.itl.p95=0s", "p95 must be longer than 0s"),
        ("scaling.minReplicas=3", "scaling.minReplicas (3) is more than scaling.maxReplicas (1)"),
    ],
)
def test_a_setting_that_cannot_be_replayed_is_named(
    world: World, overspill: Command, setting: str, words: str
) -> None:
    spec, status = {"model": {"uri": "oci://models/small"}}, {"lastDecisions": [CROWDED]}
    world.put(INFERENCE_SERVICE, "chat", "team-a", spec=spec, status=status)
    refused = overspill("why", "team-a/chat", "--replay", setting)
    assert refused.returncode == 2
    assert words in refused.stderr


def test_a_request_is_not_replayed(world: World, overspill: Command) -> None:
    refused = overspill("why", ID, "--replay", "scaling.maxReplicas=3")
    assert (refused.returncode, "only of a service" in refused.stderr) == (2, True)
