"""A gateway with a service account's rights follows a real API server."""

import asyncio
import json
import os
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml
from gateway_world import Upstream, encoded, endpoint_slice, provider, service, spillover, until

from overspill.api.keys import key_secret, new_key
from overspill.api.names import API_VERSION, GATEWAY_AUDIENCE
from overspill.cluster import Cluster
from overspill.cluster.kinds import (
    ENDPOINT_SLICE,
    INFERENCE_PROVIDER,
    INFERENCE_SERVICE,
    NAMESPACE,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Kind,
)
from overspill.gateway.plane import Plane, assemble
from overspill.gateway.settings import Settings
from overspill.gateway.state import State
from overspill.gateway.watch import Feeder

BODY = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
RULES = [
    {
        "apiGroups": ["overspill.dev"],
        "resources": ["inferenceservices", "inferenceproviders", "inferenceruntimes"],
        "verbs": ["list", "watch"],
    },
    {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    },
]
OWN_RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
    RULES[1],
]
ROTATION_SECONDS = 5.0  # a rotated or revoked key must be seen within this
SEEN_SECONDS = 20.0  # all else, such as what a role allows that was just made


@dataclass
class Running:
    """A gateway that follows one namespace; its own is another."""

    cluster: Cluster  # with every right
    own: str
    namespace: str
    plane: Plane
    feeder: Feeder
    kubeconfig: str
    host: str  # an address of this machine that EndpointSlices may hold

    async def put(self, kind: Kind, raw: dict[str, Any], namespace: str = "") -> None:
        """Apply an object."""
        version = API_VERSION if kind in (INFERENCE_SERVICE, INFERENCE_PROVIDER) else None
        obj = {"apiVersion": version or kind.api_version, "kind": kind.kind, **raw}
        obj["metadata"] = {**obj["metadata"], "namespace": namespace or self.namespace}
        obj["metadata"].pop("creationTimestamp", None)
        obj.pop("status", None)
        await self.cluster.apply(kind, obj, manager="overspill-tests")

    async def ask(self, key: str) -> tuple[int, dict[str, str]]:
        """Send a request; return its status and headers."""
        url = f"http://127.0.0.1:{self.plane.public.port}/v1/chat/completions"
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=BODY, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status, dict(answer.headers)

    async def new_key(self, name: str) -> str:
        """Make a client's key of the followed namespace."""
        plaintext, digest = new_key()
        await self.put(SECRET, key_secret(self.own, name, digest, self.namespace), self.own)
        return plaintext

    def provider(self) -> Any:
        return self.plane.state.providers.get(f"{self.namespace}/cloud")

    async def run(self, commands: str) -> None:
        """Run commands as a user would who copies them."""
        env = {"KUBECONFIG": self.kubeconfig, "PATH": os.environ["PATH"]}
        process = await asyncio.create_subprocess_shell(
            commands, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


async def _grant(cluster: Cluster, namespace: str, own: str, rules: list[Any]) -> None:
    metadata = {"name": "gateway", "namespace": namespace}
    role = {"apiVersion": ROLE.api_version, "kind": "Role", "metadata": metadata, "rules": rules}
    await cluster.create(ROLE, role)
    binding = {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"},
        "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": own}],
    }
    await cluster.create(ROLE_BINDING, binding)


async def _token(cluster: Cluster, namespace: str, audience: str = "") -> str:
    spec = {"expirationSeconds": 3600} | ({"audiences": [audience]} if audience else {})
    status, body = await cluster.raw(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/gateway/token",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
    )
    assert status == 201, body
    return str(json.loads(body)["status"]["token"])


@pytest.fixture
async def own(cluster: Cluster) -> AsyncIterator[str]:
    """The gateway's own namespace, where clients' keys are."""
    name = f"test-own-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {"overspill.dev/test": "true"}}
    await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    await cluster.create(
        SERVICE_ACCOUNT, account | {"metadata": {"name": "gateway", "namespace": name}}
    )
    yield name
    await cluster.delete(NAMESPACE, "", name)


@pytest.fixture
async def running(
    cluster: Cluster, own: str, namespace: str, kubeconfig: str, tmp_path: Path
) -> AsyncIterator[Running]:
    await _grant(cluster, namespace, own, RULES)
    await _grant(cluster, own, own, OWN_RULES)
    config = yaml.safe_load(await asyncio.to_thread(Path(kubeconfig).read_text))
    config["users"][0]["user"] = {"token": await _token(cluster, own)}
    limited = tmp_path / "kubeconfig"
    limited.write_text(yaml.safe_dump(config))
    settings = Settings(own, (namespace,), "gateway", "gateway", port=0, internal_port=0, drain=1.0)
    state = State(asyncio.get_running_loop().time, settings.queue_bound)
    async with Cluster.connect(kubeconfig=str(limited)) as mine:

        async def review(token: str) -> str:
            return await cluster.review_token(token, GATEWAY_AUDIENCE)

        feeder = Feeder(mine, state, settings)
        async with assemble(settings, state, review, lambda: feeder.synced, "127.0.0.1") as plane:
            feeder.start(plane.demand.wake, lambda: None)
            stop = asyncio.Event()
            task = asyncio.create_task(plane.serve(stop, lame_duck=0.0))
            servers = (plane.public, plane.internal)
            await until(lambda: all(s.started for s in servers) and feeder.synced, SEEN_SECONDS)
            host = urlsplit(cluster.server).hostname or ""
            yield Running(cluster, own, namespace, plane, feeder, kubeconfig, host)
            stop.set()
            await task
            await feeder.close()
            assert not feeder.failed


async def test_an_answer_from_what_the_api_server_says(running: Running) -> None:
    async with Upstream(address=(running.host, 0)).serving() as engine:
        await running.put(INFERENCE_SERVICE, service(namespace=running.namespace))
        where = endpoint_slice((running.host, engine.address[1]), namespace=running.namespace)
        await running.put(ENDPOINT_SLICE, {"addressType": "IPv4", **where})
        key = await running.new_key("ci")
        known = running.plane.state.services
        await until(lambda: any(s.admission.replicas for s in known.values()), SEEN_SECONDS)
        await until(lambda: running.plane.state.keys.find(key.encode()) is not None, SEEN_SECONDS)
        status, headers = await running.ask(key)
        assert (status, headers["x-overspill-destination"]) == (200, "local")
        await running.cluster.delete(SECRET, running.own, "ci")
        await until(lambda: running.plane.state.keys.find(key.encode()) is None, ROTATION_SECONDS)
        assert (await running.ask(key))[0] == 401


async def test_the_messages_of_a_provider_cure_it_and_its_key_rotates(running: Running) -> None:
    async with Upstream(address=(running.host, 0)).serving() as cloud:
        data = encoded(**{"api-key": "first"})
        await running.put(SECRET, {"metadata": {"name": "cloud-key"}, "data": data})
        raw = provider(cloud, namespace=running.namespace)
        await running.put(INFERENCE_PROVIDER, raw)
        await running.put(
            INFERENCE_SERVICE, service(namespace=running.namespace, spillover=spillover())
        )
        key = await running.new_key("ci")
        await until(
            lambda: bool(running.provider()) and running.provider().reason == "SecretForbidden",
            SEEN_SECONDS,
        )
        await running.run(running.provider().message)
        await until(lambda: running.provider().reason == "SecretHostNotAllowed", SEEN_SECONDS)
        command = re.search("kubectl .*", running.provider().message)
        assert command
        await running.run(command.group())
        await until(lambda: running.provider().reason == "Ready", SEEN_SECONDS)
        status, headers = await running.ask(key)
        assert (status, headers["x-overspill-reason"]) == (200, "ColdStart")
        assert cloud.seen_headers[-1]["Authorization"] == "Bearer first"
        await running.run(
            f"kubectl patch secret cloud-key -n {running.namespace} "
            f"-p '{json.dumps({'stringData': {'api-key': 'second'}})}'"
        )
        await until(lambda: running.provider().secret == "second", ROTATION_SECONDS)


async def test_demand_opens_for_a_token_made_for_us_only(running: Running) -> None:
    tokens = {
        await _token(running.cluster, running.own, GATEWAY_AUDIENCE): 200,
        await _token(running.cluster, running.own): 401,  # for the API server, not for us
    }
    async with aiohttp.ClientSession() as session:
        for token, status in tokens.items():
            url = f"http://127.0.0.1:{running.plane.internal.port}/demand"
            async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == status
