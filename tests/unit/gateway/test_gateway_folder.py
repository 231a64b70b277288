"""A gateway without Kubernetes: objects from a folder, faults named, the last good ones kept."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
import yaml
from gateway_world import BODY, Upstream, World, until, world
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.keys import digest
from overspill.gateway import folder as module
from overspill.gateway.folder import Folder, InvalidFile, parse
from overspill.gateway.state import State

SERVICE = """
apiVersion: overspill.dev/v1alpha1
kind: InferenceService
metadata: {name: chat, namespace: team-a}
spec:
  model: {uri: oci://registry/model}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: chat-1, namespace: team-a, labels: {kubernetes.io/service-name: chat}}
addressType: IPv4
ports: [{name: http, port: 8001}]
endpoints: [{addresses: [127.0.0.1]}, {addresses: [127.0.0.2]}]
"""
PROVIDER = """
apiVersion: overspill.dev/v1alpha1
kind: InferenceProvider
metadata: {name: cloud, namespace: team-a}
spec:
  type: openai-compatible
  baseURL: https://llm.example.com/v1
  secretRef: {name: cloud-key}
  models: [{name: big-1}]
"""
SECRET = """
apiVersion: v1
kind: Secret
metadata:
  {name: cloud-key, namespace: team-a, annotations: {overspill.dev/provider-hosts: llm.example.com}}
stringData: {api-key: sk-1}
"""
KEY = f"""
apiVersion: v1
kind: Secret
metadata: {{name: ci, labels: {{overspill.dev/key: "true"}}}}
stringData: {{sha256: {digest("osk-1")}, tenant: team-a}}
"""
RUNTIME = """
apiVersion: overspill.dev/v1alpha1
kind: InferenceRuntime
metadata: {name: own, namespace: team-a}
spec:
  image: own/engine:1
  metrics: {running: r, waiting: w}
"""
ALL = "---".join([SERVICE, SLICE, PROVIDER, SECRET, KEY, RUNTIME])


@pytest.fixture
def state() -> State:
    return State(time.monotonic, 10)


def loaded(path: Path, state: State) -> Folder:
    folder = Folder(path, state, lambda: None)
    folder.load()
    return folder


def test_all_kinds_are_read(tmp_path: Path, state: State) -> None:
    (tmp_path / "all.yaml").write_text(ALL)
    (tmp_path / "notes.txt").write_text("{")
    loaded(tmp_path, state)
    assert list(state.services["team-a/chat"].admission.replicas) == [
        ("127.0.0.1", 8001),
        ("127.0.0.2", 8001),
    ]
    assert state.providers["team-a/cloud"].secret == "sk-1"
    assert state.runtimes["team-a/own"].metrics.running == "r"
    found = state.keys.find(b"osk-1")
    assert found is not None
    assert found.tenant == "team-a"


def test_json_and_what_the_cluster_itself_wrote_are_read(tmp_path: Path, state: State) -> None:
    raw = yaml.safe_load(SLICE)
    raw["metadata"]["labels"] = {
        "kubernetes.io/service-name": "chat-engine",
        "overspill.dev/service": "chat",
    }
    (tmp_path / "slice.json").write_text(json.dumps(raw))
    (tmp_path / "service.yml").write_text(SERVICE)
    loaded(tmp_path, state)
    assert len(state.services["team-a/chat"].admission.replicas) == 2


def test_what_is_no_yaml_is_told_without_the_line_that_may_hold_a_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile) as told:
        parse(b"stringData:\n  api-key: sk-very: secret\n")
    assert "line 2, column 19" in str(told.value)
    assert "sk-very" not in str(told.value)


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (SERVICE, "{", "no YAML"),
        ("oci://registry/model}", "oci://registry/model, urll: x}", "spec.model.urll"),
        ("metrics: {running: r", "metrics: {runing: r", "spec.metrics.runing"),
        ("kind: InferenceService", "kind: Deployment", "kind: must be one of InferenceService"),
        ("name: chat, namespace: team-a}\nspec", "namespace: team-a}\nspec", "metadata.name"),
        ("name: chat, namespace: team-a}\nspec", 'name: ""}\nspec', "metadata.name"),
        ("ports: [{name: http, port: 8001}]", "ports: [{port: 8001}]", "ports: one must be named"),
        ("ports: [{name: http, port: 8001}]", "ports: 8001", "ports: Input should be a valid list"),
        (
            "[127.0.0.1]",
            "[engine.local]",
            "endpoints.0.addresses.0: value is not a valid IPv4 or IPv6",
        ),
        ("kubernetes.io/service-name: chat", "a: b", "kubernetes.io/service-name must name"),
        ("  baseURL: https://llm.example.com/v1\n", "", "spec.baseURL: required"),
        ("https://llm.example.com", "http://llm.example.com", "insecure: true"),
        (digest("osk-1"), "abc", "sha256: must be"),
        (
            "stringData: {api-key: sk-1}",
            "stringData: {api-key: 1}",
            "stringData.api-key: Input should be a valid string",
        ),
        (KEY, KEY + "---" + KEY, "Secret default/ci is in all.yaml already"),
    ],
)
def test_a_fault_is_told_with_file_object_and_field(
    tmp_path: Path, state: State, good: str, bad: str, told: str
) -> None:
    assert good in ALL
    (tmp_path / "all.yaml").write_text(ALL.replace(good, bad))
    with pytest.raises(InvalidFile, match=r"^all\.yaml: ") as caught:
        loaded(tmp_path, state)
    assert told in str(caught.value)
    assert "sk-1" not in str(caught.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(data=st.data(), text=st.sampled_from([SERVICE, SLICE, PROVIDER, SECRET, KEY]))
def test_whatever_a_field_holds_is_read_or_refused(data: st.DataObject, text: str) -> None:
    """Nothing else comes out of a file, or the gateway would stop following its folder."""
    place = raw = yaml.safe_load(text)
    while True:
        name = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else [0]))
        if not (isinstance(place[name], dict | list) and place[name] and data.draw(st.booleans())):
            break
        place = place[name]
    place[name] = data.draw(VALUES)
    state = State(time.monotonic, 10)
    with contextlib.suppress(InvalidFile):
        objects = module.parse(yaml.safe_dump(raw).encode())
        file = module.File((0, 0, 0), objects=tuple(objects))
        Folder(Path(), state, lambda: None)._take(module.merged({Path(): file})[0])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, state: State) -> None:
    with pytest.raises(InvalidFile, match="No such file"):
        loaded(tmp_path / "nowhere", state)


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A gateway that follows a folder, with one real engine."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    async with Upstream().serving() as engine, world() as w:
        (tmp_path / "service.yaml").write_text(SERVICE)
        (tmp_path / "slice.yaml").write_text(
            SLICE.replace("8001", str(engine.address[1])).replace(", {addresses: [127.0.0.2]}", "")
        )
        (tmp_path / "keys.yaml").write_text(KEY)
        folder = loaded(tmp_path, w.state)
        w.key = "osk-1"
        task = asyncio.create_task(folder.follow())
        yield w
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_changes_are_taken_and_a_broken_file_keeps_what_it_had(
    served: World, tmp_path: Path
) -> None:
    w, state = served, served.state
    assert (await w.post("/v1/chat/completions", BODY))[0] == 200
    with structlog.testing.capture_logs() as logs:
        (tmp_path / "service.yaml").write_text(SERVICE.replace("uri", "url"))
        (tmp_path / "provider.yaml").write_text(PROVIDER)
        await until(lambda: "team-a/cloud" in state.providers)
    # Told once for each look at a folder that has changed, and one may fall between two writes.
    (told,) = {entry["fault"] for entry in logs if entry["log_level"] == "warning"}
    assert told.startswith("service.yaml: InferenceService team-a/chat: spec.model.uri")
    assert (await w.post("/v1/chat/completions", BODY))[0] == 200

    (tmp_path / "service.yaml").write_text(SERVICE.replace("uri", "servedName: qwen, uri"))
    await until(lambda: state.services["team-a/chat"].resource.served_name == "qwen")
    assert (await w.post("/v1/chat/completions", {**BODY, "model": "qwen"}))[0] == 200
    (tmp_path / "keys.yaml").unlink()
    (tmp_path / "service.yaml").unlink()
    await until(lambda: not state.services)
    assert (await w.post("/v1/chat/completions", BODY))[0] == 401


def test_the_cluster_client_is_not_imported() -> None:
    check = (
        "import sys, overspill.cli.main, overspill.cli.gateway\n"
        "print([m for m in sys.modules if m.startswith(('kube', 'overspill.cluster'))])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("command", "package"), [("gateway", "xxhash"), ("try", "xllamacpp")])
def test_a_command_without_its_packages_says_what_to_install(
    tmp_path: Path, command: str, package: str
) -> None:
    given = ["--objects", str(tmp_path)] if command == "gateway" else []
    start = (
        f"import sys; sys.modules['{package}'] = None; from overspill.cli.main import run\n"
        f"sys.argv = ['overspill', '{command}', *{given}]; run()"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"error: overspill {command} needs {package}: pip install 'overspill[{command}]'"
    )
