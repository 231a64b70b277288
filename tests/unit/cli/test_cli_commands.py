"""The command as a user runs it, against an API server on loopback."""

import json

import pytest
from cli_world import Command, World

from overspill.api.keys import key_secret, new_key
from overspill.api.sse import MAX_EVENT
from overspill.cluster.kinds import (
    CRD,
    DEPLOYMENT,
    INFERENCE_SERVICE,
    LEASE,
    SECRET,
    SERVICE_ACCOUNT,
)

SYSTEM = "overspill-system"
CHART = {"app.kubernetes.io/part-of": "overspill", "app.kubernetes.io/instance": "overspill"}
STREAM = [
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Par"}}]}\n\ndata: {"choices":[{"delta":{"con',
    b'tent":"is"}}]}\n\n: x-overspill-cost-usd=0.0021\n\ndata: [DONE]\n\n',
]
HEADERS = {"x-overspill-destination": "platform/openai", "x-overspill-reason": "ClusterFull"}


def installed(world: World) -> None:
    """What an install leaves in a cluster, with one service and one key."""
    world.put(DEPLOYMENT, "overspill-gateway", SYSTEM, metadata={"labels": CHART})
    world.put(SERVICE_ACCOUNT, "overspill-gateway", SYSTEM, metadata={"labels": CHART})
    history = {"owner": "helm", "name": "overspill"}
    world.put(SECRET, "sh.helm.release.v1.overspill.v1", SYSTEM, metadata={"labels": history})
    world.put(LEASE, "overspill-operator", SYSTEM)  # made anew by the operator
    own = CHART | {"app.kubernetes.io/managed-by": "overspill"}
    world.put(DEPLOYMENT, "overspill-engine", "team-a", metadata={"labels": own})
    world.put(INFERENCE_SERVICE, "overspill", "team-a", status={})
    key = {"labels": {"overspill.dev/key": "true"}}
    world.put(SECRET, "key-ci", SYSTEM, metadata=key)
    part = {"labels": {"app.kubernetes.io/part-of": "overspill"}}
    world.put(CRD, "inferenceservices.overspill.dev", metadata=part)


def test_a_key_is_shown_once_and_stored_as_a_digest(world: World, overspill: Command) -> None:
    made = overspill("keys", "create", "ci", "--tenant", "team-a", "-o", "json")
    key = json.loads(made.stdout)["key"]
    assert key.startswith("osk-")
    assert key not in json.dumps(world.objects)
    listed = json.loads(overspill("keys", "list", "-o", "json").stdout)
    assert [(k["name"], k["tenant"], k["services"]) for k in listed] == [
        ("ci", "team-a", ["team-a/*"])
    ]


def test_a_key_that_exists_is_not_replaced(world: World, overspill: Command) -> None:
    assert overspill("keys", "create", "ci", "--tenant", "team-a").returncode == 0
    again = overspill("keys", "create", "ci", "--tenant", "team-a")
    assert again.returncode == 1
    assert "keys revoke ci" in again.stderr
    assert again.stdout == ""


def test_a_revoked_key_is_gone_and_another_secret_is_left_alone(
    world: World, overspill: Command
) -> None:
    overspill("keys", "create", "ci", "--tenant", "team-a")
    world.put(SECRET, "key-of-somebody", SYSTEM)
    assert overspill("keys", "revoke", "ci").returncode == 0
    other = overspill("keys", "revoke", "of-somebody")
    assert other.returncode == 1
    assert "no key of-somebody" in other.stderr
    assert list(world.objects) == [SECRET.path(SYSTEM, "key-of-somebody")]


def test_wrong_usage_and_a_refusing_cluster_have_their_own_status(
    world: World, overspill: Command
) -> None:
    assert overspill("keys", "create", "ci").returncode == 2
    assert overspill("keys", "create", "ci", "--tenant", "Team A").returncode == 2
    world.forbidden.add("/api/v1/namespaces")
    refused = overspill("keys", "list")
    assert refused.returncode == 3
    assert refused.stderr.count("\n") == 1
    assert "ask whoever runs the cluster" in refused.stderr


def test_chat_streams_and_says_where_the_answer_came_from(world: World, overspill: Command) -> None:
    world.answer, world.answer_headers = STREAM, HEADERS
    world.refusals = 2  # a gateway that has not seen the new key yet
    done = overspill("chat", "chat", "What is the capital of France?", "-n", "team-a")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Paris\n"
    assert "[platform/openai (ClusterFull), $0.0021]" in done.stderr
    assert world.asked[-1]["body"]["model"] == "team-a/chat"
    assert not world.objects, "the session's key is deleted"
    assert len(world.deleted) == 1


def test_chat_uses_the_users_own_key(world: World, overspill: Command) -> None:
    key, digest = new_key()
    secret = key_secret(SYSTEM, "key-mine", digest, "team-a")
    world.put(SECRET, "key-mine", SYSTEM, data=secret["data"])
    world.answer, world.answer_headers = STREAM, HEADERS
    done = overspill("chat", "team-a/chat", "-o", "json", stdin="Hello", OVERSPILL_API_KEY=key)
    assert json.loads(done.stdout) == {
        "answer": "Paris",
        "destination": "platform/openai",
        "reason": "ClusterFull",
        "request_id": "",
        "cost_usd": "0.0021",
    }
    assert [asked["key"] for asked in world.asked] == [key]
    assert not world.deleted


def test_an_answer_that_breaks_off_is_no_answer(world: World, overspill: Command) -> None:
    world.answer = STREAM[:2]
    done = overspill("chat", "team-a/chat", "Hello")
    assert done.returncode == 1
    assert "broke off" in done.stderr
    assert not world.objects, "the session's key is deleted"


def test_an_unknown_key_is_explained(world: World, overspill: Command) -> None:
    done = overspill("chat", "team-a/chat", "Hello", OVERSPILL_API_KEY="osk-other")
    assert done.returncode == 1
    assert "unknown key" in done.stderr
    assert "osk-other" not in done.stderr


@pytest.mark.parametrize("service", ["Chat", "team-a/Chat", "team-a/b/c", "/chat", "team-a/*"])
def test_chat_says_what_is_no_name_of_a_service(
    service: str, world: World, overspill: Command
) -> None:
    done = overspill("chat", service, "Hello")
    assert done.returncode == 2
    assert "namespace/name" in done.stderr
    assert not world.asked


def test_chat_asks_nothing_without_a_question(world: World, overspill: Command) -> None:
    done = overspill("chat", "team-a/chat", stdin=" \n")
    assert done.returncode == 2
    assert "prompt" in done.stderr
    assert not world.asked


def test_chat_survives_a_stream_that_is_none(world: World, overspill: Command) -> None:
    world.answer = [b"x" * (MAX_EVENT + 1)]
    done = overspill("chat", "team-a/chat", "Hello")
    assert done.returncode == 1
    assert "an event of the stream exceeds" in done.stderr
    assert not world.objects, "the session's key is deleted"


def test_uninstall_lists_first_and_keeps_what_is_served(world: World, overspill: Command) -> None:
    installed(world)
    listed = overspill("uninstall", "--dry-run", "-o", "json")
    names = [(o["kind"], o["name"]) for o in json.loads(listed.stdout)]
    assert names == [
        ("Deployment", "overspill-gateway"),
        ("ServiceAccount", "overspill-gateway"),
        ("Lease", "overspill-operator"),
        ("Secret", "sh.helm.release.v1.overspill.v1"),
    ]
    assert not world.deleted
    assert overspill("uninstall", "--yes").returncode == 0
    assert {o["metadata"]["name"] for o in world.objects.values()} == {
        "overspill-engine",
        "overspill",
        "key-ci",
        "inferenceservices.overspill.dev",
    }


def test_purge_removes_services_first_and_definitions_last(
    world: World, overspill: Command
) -> None:
    installed(world)
    assert overspill("uninstall", "--purge", "--yes").returncode == 0
    assert world.deleted[0] == INFERENCE_SERVICE.path("team-a", "overspill")
    assert world.deleted[-1] == CRD.path("", "inferenceservices.overspill.dev")
    # The owner reference takes it along in a real cluster.
    assert list(world.objects) == [DEPLOYMENT.path("team-a", "overspill-engine")]


def test_the_list_names_a_service_as_everything_else_does(world: World, overspill: Command) -> None:
    installed(world)
    listed = overspill("uninstall", "--purge", "--dry-run")
    assert "InferenceService" in listed.stdout
    assert "team-a/overspill" in listed.stdout


def test_nobody_is_asked_without_a_terminal(world: World, overspill: Command) -> None:
    installed(world)
    done = overspill("uninstall")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not world.deleted


@pytest.mark.parametrize(("typed", "goes"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_the_question_is_no_part_of_the_list(
    world: World, overspill: Command, typed: str, *, goes: bool
) -> None:
    installed(world)
    done = overspill("uninstall", "-o", "json", typed=typed)
    assert done.returncode == (0 if goes else 1)
    assert json.loads(done.stdout)
    assert "[y/N]" in done.stderr
    assert bool(world.deleted) is goes


def test_nothing_installed_is_said(world: World, overspill: Command) -> None:
    done = overspill("uninstall", "--yes")
    assert done.returncode == 1
    assert "--system-namespace" in done.stderr


def test_check_fails_with_a_remedy_where_nothing_is_installed(
    world: World, overspill: Command
) -> None:
    done = overspill("check", "-o", "json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["ok"] is False
    failed = {f["what"]: f["remedy"] for f in report["findings"] if f["verdict"] == "failed"}
    assert "overspill crds apply" in failed["definition inferenceservices"]
    assert "install the chart" in failed["operator"]


def test_the_definitions_are_those_of_the_repository(overspill: Command) -> None:
    printed = json.loads(overspill("crds", "print", "-o", "json").stdout)
    assert [d["spec"]["names"]["kind"] for d in printed] == [
        "InferenceService",
        "InferenceProvider",
        "InferenceRuntime",
    ]
