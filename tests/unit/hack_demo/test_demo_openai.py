"""The demo with the real OpenAI as the cloud: where the key goes, and how the gateway gets out."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from demo import main as demo
from lab import platform
from lab.kube import Kube

KEY = "sk-canary-0001"
RELAY = """import pathlib, sys
pathlib.Path("asked").write_text(" ".join(sys.argv[1:]))
print("  0:01  relay is ready")
print("http://10.95.0.1:3128")
"""
# Keeps what it is called with, and what it is given to read.
KUBECTL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
case " $* " in
*" get secret "*) cat "$here/secret.json" 2>/dev/null ;;
*" -f - "*) cat >> "$here/given" ;;
esac
exit 0
"""


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kube:
    (tmp_path / "hack/cluster").mkdir(parents=True)
    (tmp_path / "hack/cluster/main.py").write_text(RELAY)
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    images = dict.fromkeys(("operator", "gateway", "engine-cpu", "prometheus"), "image:1")
    monkeypatch.setattr(platform, "images", lambda: images)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return Kube(kubeconfig="none", path=str(tmp_path))


def given(kube: Kube) -> list[dict[str, Any]]:
    """All that was applied."""
    text, objects = Path(kube.path, "given").read_text(), []
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        objects += value["items"]
        text = text[end:].lstrip()
    return objects


def test_without_a_key_nothing_is_opened(kube: Kube) -> None:
    assert demo.way_out(kube) == ""
    assert not Path(kube.path, "asked").exists()
    assert demo.chart_values("")["gateway"]["httpsProxy"] == ""


def test_with_a_key_the_gateway_gets_one_way_out(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    proxy = demo.way_out(kube)
    assert proxy == "http://10.95.0.1:3128"
    assert Path(kube.path, "asked").read_text() == "relay api.openai.com:443"
    gateway = demo.chart_values(proxy)["gateway"]
    assert gateway["httpsProxy"] == proxy
    assert gateway["image"] == "image:1"


def test_a_cluster_of_the_users_has_a_way_out_of_its_own(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    theirs = Kube(kubeconfig="none", path=kube.path, context="theirs")
    assert demo.way_out(theirs) == ""


def test_the_key_is_in_one_secret_only_and_the_price_is_said(
    kube: Kube, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert demo.cloud(kube) == platform.OPENAI_MODEL
    secret, provider = given(kube)
    assert secret["stringData"] == {"api-key": KEY}
    assert secret["metadata"]["annotations"] == {platform.HOSTS: "api.openai.com"}
    assert provider["spec"]["type"] == "openai"
    said = capsys.readouterr().out
    assert "cost money" in said
    assert "$0.00038 each" in said
    for text in (Path(kube.path, "calls").read_text(), str(provider), said):
        assert KEY not in text


@pytest.mark.parametrize(("known", "kept"), [(KEY, False), ("sk-lab-1", True), (None, False)])
def test_the_stand_in_gets_a_key_of_its_own(kube: Kube, known: str | None, *, kept: bool) -> None:
    if known:
        secret = {"data": {"api-key": base64.b64encode(known.encode()).decode()}}
        Path(kube.path, "secret.json").write_text(json.dumps(secret))
    assert demo.cloud(kube) == platform.CLOUD_MODEL
    objects = given(kube)
    (secret,) = [o for o in objects if o["kind"] == "Secret"]
    assert secret["metadata"]["annotations"] == {platform.HOSTS: platform.CLOUD_HOST}
    key = secret["stringData"]["api-key"]
    assert key.startswith("sk-lab-")
    assert (key == known) == kept
    (server,) = [o for o in objects if o["kind"] == "Deployment"]
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    assert server["spec"]["template"]["metadata"]["annotations"] == {"checksum/key": digest}
