"""The command as a user runs it, against an API server on loopback."""

import json
from datetime import datetime

import pytest
from cli_world import Command, World

from overspill.api.keys import digest, key_secret, new_key, parse_key
from overspill.api.sse import MAX_EVENT
from overspill.cluster.kinds import SECRET

SYSTEM = "overspill-system"
STREAM = [
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Par"}}]}\n\ndata: {"choices":[{"delta":{"con',
    b'tent":"is"}}]}\n\n: x-overspill-cost-usd=0.0021\n\ndata: [DONE]\n\n',
]
HEADERS = {"x-overspill-destination": "platform/openai", "x-overspill-reason": "ClusterFull"}


def test_a_key_is_shown_once_and_stored_as_a_digest(world: World, overspill: Command) -> None:
    made = overspill("keys", "create", "ci", "--tenant", "team-a", "-o", "json")
    key = json.loads(made.stdout)["key"]
    assert key.startswith("osk-")
    assert key not in json.dumps(world.objects)
    listed = json.loads(overspill("keys", "list", "-o", "json").stdout)
    assert [(k["name"], k["tenant"], k["services"]) for k in listed] == [
        ("ci", "team-a", ["team-a/*"])
    ]
    assert (
        overspill("keys", "create", "b", "--tenant", "a", "--budget-per-day", "5").returncode == 0
    )
    wrong = overspill("keys", "create", "c", "--tenant", "a", "--budget-per-day", "five")
    assert wrong.returncode == 2
    assert "budgetPerDay" in wrong.stderr


LIMITED = ("--requests-per-minute", "600", "--tokens-per-minute", "100000")


def test_a_key_may_go_first_and_has_limits(world: World, overspill: Command) -> None:
    command = ("keys", "create", "ui", "--tenant", "team-a")
    assert overspill(*command, "--priority", "5", "--weight", "2", *LIMITED).returncode == 0
    (listed,) = json.loads(overspill("keys", "list", "-o", "json").stdout)
    assert (listed["priority"], listed["weight"]) == (5, 2)
    assert (listed["rpm"], listed["tpm"]) == (600, 100_000)
    assert "600  100000" in overspill("keys", "list").stdout
    refused = overspill("keys", "create", "x", "--tenant", "team-a", "--weight", "0")
    assert refused.returncode == 2
    assert "--weight: must be a whole number from 1 to 1000" in refused.stderr


def test_a_key_that_exists_is_not_replaced(world: World, overspill: Command) -> None:
    assert overspill("keys", "create", "ci", "--tenant", "team-a").returncode == 0
    again = overspill("keys", "create", "ci", "--tenant", "team-a")
    assert again.returncode == 1
    assert "keys revoke ci" in again.stderr
    assert again.stdout == ""


def test_a_rotated_key_keeps_all_but_itself(world: World, overspill: Command) -> None:
    overspill("keys", "create", "ci", "--tenant", "team-a", *LIMITED)
    path = SECRET.path(SYSTEM, "key-ci")
    before = parse_key(world.objects[path])
    made = json.loads(overspill("keys", "rotate", "ci", "--overlap", "1h", "-o", "json").stdout)
    after = parse_key(world.objects[path])
    assert (after.digest, after.previous) == (digest(made["key"]), before.digest)
    assert after.previous_until == datetime.fromisoformat(made["previousUntil"]).timestamp() // 1
    assert (after.id, after.tokens_per_minute) == ("key-ci", 100_000)
    assert overspill("keys", "rotate", "ci", "--overlap", "0s").returncode == 0
    assert parse_key(world.objects[path]).previous == ""
    for overlap, said in (("soon", "is not a duration"), ("721h", "at most 720h")):
        refused = overspill("keys", "rotate", "ci", "--overlap", overlap)
        assert refused.returncode == 2
        assert "--overlap: " in refused.stderr
        assert said in refused.stderr
    assert "no key b" in overspill("keys", "rotate", "b").stderr


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
