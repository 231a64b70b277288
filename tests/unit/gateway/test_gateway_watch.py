"""The state follows the API server's events; a Secret is used only where it allows it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_cluster import FakeCluster
from gateway_world import Upstream, encoded, endpoint_slice, provider, runtime, service, until

from overspill.api.keys import key_secret, new_key
from overspill.api.provider import InferenceProvider
from overspill.cluster.kinds import (
    ENDPOINT_SLICE,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    SECRET,
)
from overspill.cluster.watching import Event
from overspill.gateway.secret import read_secret
from overspill.gateway.settings import Settings
from overspill.gateway.share import Share
from overspill.gateway.state import State
from overspill.gateway.watch import Feeder

HOSTS = "overspill.dev/provider-hosts"
PROVIDER = InferenceProvider.parse(provider(Upstream(address=("llm.example.com", 80))))


def secret(hosts: str = "llm.example.com", **data: str) -> dict[str, Any]:
    values = encoded(**{"api-key": "sk-1"} | data)
    return {"metadata": {"name": "cloud-key", "annotations": {HOSTS: hosts}}, "data": values}


SECRETS = [
    # Secret, key, reason, in the message
    (secret(), "sk-1", "Ready", ""),
    (secret("a.example, LLM.example.com"), "sk-1", "Ready", ""),
    (secret(**{"api-key": " sk-2\n"}), "sk-2", "Ready", ""),
    (None, "", "SecretNotFound", "create Secret cloud-key in namespace team-a"),
    (secret(""), "", "SecretHostNotAllowed", f"{HOSTS}=llm.example.com"),
    (secret("example.com"), "", "SecretHostNotAllowed", "kubectl annotate secret -n team-a"),
    ({"metadata": {"name": "x"}}, "", "SecretHostNotAllowed", "kubectl"),
    (secret() | {"data": encoded(other="x")}, "", "SecretKeyMissing", "no key api-key"),
    (secret() | {"data": None}, "", "SecretKeyMissing", "no key api-key"),
    (secret(**{"api-key": ""}), "", "SecretEmpty", "holds no API key"),
    (secret(**{"api-key": "a\r\nx-evil: 1"}), "", "SecretEmpty", "holds no API key"),
    (secret() | {"data": {"api-key": "%%%"}}, "", "SecretEmpty", "holds no API key"),
]


@pytest.mark.parametrize(("given", "key", "reason", "message"), SECRETS)
def test_a_key_and_how_it_is(given: Any, key: str, reason: str, message: str) -> None:
    got_key, got_reason, got_message = read_secret(PROVIDER, given)
    assert (got_key, got_reason) == (key, reason)
    assert message in got_message
    assert "sk-1" not in got_message


@pytest.fixture
async def fed() -> AsyncIterator[tuple[FakeCluster, State, Feeder]]:
    cluster = FakeCluster()
    state = State(asyncio.get_running_loop().time, 10)
    feeder = Feeder(cluster, state, Settings("overspill-system", instance="b"))  # type: ignore[arg-type]
    feeder.start(lambda: None, lambda: None)
    yield cluster, state, feeder
    await feeder.close()
    assert not feeder.failed


async def test_the_state_follows(fed: tuple[FakeCluster, State, Feeder]) -> None:
    cluster, state, feeder = fed
    key, digest = new_key()
    assert not feeder.synced
    cluster.send(ENDPOINT_SLICE, "SYNC", endpoint_slice(("10.0.0.1", 8000)))
    cluster.send(INFERENCE_SERVICE, "SYNC", service())
    cluster.send(SECRET, "SYNC", key_secret("overspill-system", "ci", digest, "team-a"))
    cluster.send(INFERENCE_PROVIDER, "SYNC", provider(Upstream(address=("llm.example.com", 80))))
    cluster.send(INFERENCE_RUNTIME, "SYNC", runtime())
    cluster.peers("SYNC", "b")
    await until(lambda: feeder.synced)
    assert list(state.runtimes) == ["team-a/own"]
    cluster.send(INFERENCE_RUNTIME, "DELETED", runtime())
    await until(lambda: not state.runtimes)
    assert list(state.services["team-a/chat"].admission.replicas) == [("10.0.0.1", 8000)]
    assert state.keys.find(key.encode()) is not None
    assert cluster.selectors["endpointslices"] == ("", "overspill.dev/service")
    assert cluster.selectors["secrets"] == ("overspill-system", "overspill.dev/key=true")

    cluster.send(ENDPOINT_SLICE, "MODIFIED", endpoint_slice(("10.0.0.1", 8000), ready=False))
    await until(lambda: not state.services["team-a/chat"].admission.replicas)
    assert state.services["team-a/chat"].broken
    cluster.send(SECRET, "DELETED", key_secret("overspill-system", "ci", digest, "team-a"))
    await until(lambda: state.keys.find(key.encode()) is None)
    cluster.send(INFERENCE_SERVICE, "MODIFIED", {"metadata": {}})  # strange, must not stop it
    cluster.send(INFERENCE_SERVICE, "DELETED", service())
    await until(lambda: not state.services)


async def test_what_a_newer_operator_says_is_read(
    fed: tuple[FakeCluster, State, Feeder],
) -> None:
    """The operator is upgraded before the gateways, and one of them may start anew meanwhile."""
    cluster, state, _ = fed
    later = {"later": {"by": "a newer version"}}
    full = {"capacity": {"full": True, **later}, **later}
    cluster.send(INFERENCE_SERVICE, "SYNC", service(status=full, **later))
    await until(lambda: bool(state.services))
    assert state.services["team-a/chat"].full
    room = {"capacity": {"full": False, **later}, **later}
    cluster.send(INFERENCE_SERVICE, "MODIFIED", service(status=room, **later))
    await until(lambda: not state.services["team-a/chat"].full)


@pytest.mark.parametrize(
    "ports", [None, [], [{"name": "http"}], [{"name": "http", "port": None}], [{"port": 8000}]]
)
async def test_a_slice_without_a_port_spoils_no_other(
    fed: tuple[FakeCluster, State, Feeder], ports: list[dict[str, Any]] | None
) -> None:
    cluster, state, _ = fed
    strange = {**endpoint_slice(("10.0.0.2", 8001)), "ports": ports}
    cluster.send(INFERENCE_SERVICE, "SYNC", service())
    cluster.send(ENDPOINT_SLICE, "SYNC", strange, endpoint_slice(("10.0.0.1", 8000)))
    await until(lambda: bool(state.services and state.services["team-a/chat"].endpoints))
    assert list(state.services["team-a/chat"].admission.replicas) == [("10.0.0.1", 8000)]
    cluster.send(ENDPOINT_SLICE, "MODIFIED", {**endpoint_slice(("10.0.0.1", 8000)), "ports": ports})
    await until(lambda: not state.services["team-a/chat"].endpoints)


async def test_the_share_follows_the_gateways(fed: tuple[FakeCluster, State, Feeder]) -> None:
    cluster, state, _ = fed
    cluster.peers("SYNC", "a", "b")
    await until(lambda: state.share == Share(1, 2))
    cluster.peers("ADDED", "c", name="gateway-y")
    await until(lambda: state.share == Share(1, 3))
    cluster.peers("MODIFIED", "b", name="gateway-x")
    await until(lambda: state.share == Share(0, 2))
    cluster.peers("DELETED", name="gateway-y")
    await until(lambda: state.share == Share(0, 1))


async def test_a_providers_key_follows_its_secret(fed: tuple[FakeCluster, State, Feeder]) -> None:
    cluster, state, _ = fed
    only = "metadata.name=cloud-key"
    queue = cluster.queues.setdefault(only, asyncio.Queue())
    raw = provider(Upstream(address=("llm.example.com", 80)))
    cluster.send(INFERENCE_PROVIDER, "ADDED", raw)
    queue.put_nowait(Event("SYNC", items=[secret()]))
    await until(lambda: "team-a/cloud" in state.providers)
    known = state.providers["team-a/cloud"]
    await until(lambda: known.secret == "sk-1")
    queue.put_nowait(Event("MODIFIED", secret(**{"api-key": "sk-2"})))
    await until(lambda: known.secret == "sk-2")
    queue.put_nowait(Event("DELETED", secret()))
    await until(lambda: known.reason == "SecretNotFound")
    assert known.secret == ""
    cluster.send(INFERENCE_PROVIDER, "DELETED", raw)
    await until(lambda: not state.providers)


async def test_a_changed_host_needs_the_secrets_consent_anew(
    fed: tuple[FakeCluster, State, Feeder],
) -> None:
    cluster, state, _ = fed
    queue = cluster.queues.setdefault("metadata.name=cloud-key", asyncio.Queue())
    cluster.send(INFERENCE_PROVIDER, "ADDED", provider(Upstream(address=("llm.example.com", 80))))
    queue.put_nowait(Event("SYNC", items=[secret()]))
    await until(lambda: bool(state.providers) and state.providers["team-a/cloud"].secret == "sk-1")
    cluster.send(INFERENCE_PROVIDER, "MODIFIED", provider(Upstream(address=("evil.example", 443))))
    await until(lambda: state.providers["team-a/cloud"].secret == "")
    queue.put_nowait(Event("SYNC", items=[secret()]))
    await until(lambda: state.providers["team-a/cloud"].reason == "SecretHostNotAllowed")


async def test_a_missing_right_says_how_to_grant_it(
    fed: tuple[FakeCluster, State, Feeder],
) -> None:
    cluster, state, _ = fed
    cluster.forbidden = True
    cluster.send(INFERENCE_PROVIDER, "ADDED", provider(Upstream(address=("llm.example.com", 80))))
    await until(
        lambda: (
            bool(state.providers) and state.providers["team-a/cloud"].reason == "SecretForbidden"
        )
    )
    message = state.providers["team-a/cloud"].message
    assert "--resource-name=cloud-key" in message
    assert "--serviceaccount=overspill-system:overspill-gateway" in message
