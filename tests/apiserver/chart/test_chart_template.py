"""What the chart renders for values other than its defaults."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_world import CHART, ROOT, Helm, HelmFailed, env, named, settings
from network import reach
from rights import matrix

from overspill.api.crd import RESOURCES

SCOPED = {"watchNamespaces": ["team-a", "team-b"]}
PROVIDERS = {"gateway": {"providerSecrets": [{"namespace": "platform", "names": ["openai-key"]}]}}


def test_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_the_plain_install_has_no_diff(helm: Helm) -> None:
    """On a machine without helm `make verify` cannot look at it; here there is one."""
    path = f"{Path(helm.program).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "hack/generate.py", "--check"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize(
    ("values", "named_in_error"),
    [
        ({"gatewai": {}}, "gatewai"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": "3"}}, "/gateway/replicas"),
        ({"gateway": {"service": {"type": "Public"}}}, "/gateway/service/type"),
        ({"gateway": {"providerSecrets": [{"namespace": "a"}]}}, "names"),
        ({"gateway": {"httpsProxy": "proxy:3128"}}, "/gateway/httpsProxy"),
        ({"image": {"registry": ""}}, "/image/registry"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Team A"]}, "/watchNamespaces/0"),
        ({"autoscaler": {"interval": "5"}}, "/autoscaler/interval"),
        ({"autoscaler": {"upWindow": "0.0s0ms"}}, "/autoscaler/upWindow"),
        ({"prometheus": {"url": "prometheus:9090"}}, "/prometheus/url"),
        ({"prometheus": {"url": "http://p:9090", "enabled": True}}, "not both"),
        ({"prometheus": {"recordingRules": True}}, "there is no Prometheus to record"),
        ({"prometheus": {"caConfigMap": "ca"}}, "set prometheus.url"),
        # Prometheus itself reads no fractions.
        ({"prometheus": {"scrapeInterval": "0.5s"}}, "/prometheus/scrapeInterval"),
        ({"logLevel": "verbose"}, "/logLevel"),
    ],
)
def test_a_wrong_value_is_named(helm: Helm, values: dict[str, Any], named_in_error: str) -> None:
    with pytest.raises(HelmFailed, match=named_in_error):
        helm.template(**values)


def test_watched_namespaces_get_roles_and_nothing_is_cluster_wide(helm: Helm) -> None:
    objects = helm.template(**SCOPED)
    rights = matrix(objects)
    assert "cluster" not in rights["overspill-operator"]
    assert rights["overspill-gateway"]["cluster"] == ["authentication.k8s.io/tokenreviews: create"]
    for account in ("overspill-operator", "overspill-gateway"):
        everywhere = matrix(helm.template())[account]["cluster"]
        # What is of no namespace: token reviews have a role of their own, nodes are left unread.
        unscoped = ("authentication.k8s.io/tokenreviews: create", "core/nodes: list")
        scoped = [line for line in everywhere if line not in unscoped]
        assert rights[account]["team-a"] == rights[account]["team-b"] == scoped
    operator = env(named(objects, "Deployment", "overspill-operator"))
    assert operator["OVERSPILL_WATCH_NAMESPACES"] == "team-a,team-b"


def test_a_providers_secret_is_readable_by_name_only(helm: Helm) -> None:
    rights = matrix(helm.template(**PROVIDERS))
    assert rights["overspill-gateway"]["platform"] == ["core/secrets named openai-key: list, watch"]
    assert "platform" not in rights["overspill-operator"]


def test_a_namespace_named_twice_gets_one_role_for_all_its_secrets(helm: Helm) -> None:
    secrets = [
        {"namespace": "platform", "names": ["openai-key"]},
        {"namespace": "platform", "names": ["anthropic-key", "openai-key"]},
    ]
    objects = helm.template(gateway={"providerSecrets": secrets})
    assert len([o for o in objects if o["metadata"].get("namespace") == "platform"]) == 2
    assert matrix(objects)["overspill-gateway"]["platform"] == [
        "core/secrets named openai-key, anthropic-key: list, watch"
    ]


def test_our_own_prometheus_has_no_rights_and_the_operator_asks_it(helm: Helm) -> None:
    objects = helm.template(prometheus={"enabled": True})
    assert matrix(objects)["overspill-prometheus"] == {}
    pod = named(objects, "Deployment", "overspill-prometheus")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    operator = env(named(objects, "Deployment", "overspill-operator"))
    url = "http://overspill-prometheus.overspill-system.svc:9090"
    assert operator["OVERSPILL_PROMETHEUS_URL"] == url


def test_a_prometheus_of_the_user_is_asked(helm: Helm) -> None:
    objects = helm.template(prometheus={"url": "http://prometheus.monitoring:9090"})
    operator = env(named(objects, "Deployment", "overspill-operator"))
    assert operator["OVERSPILL_PROMETHEUS_URL"] == "http://prometheus.monitoring:9090"
    assert not [o for o in objects if o["metadata"]["name"] == "overspill-prometheus"]


def test_images_come_from_the_registry_or_in_full(helm: Helm) -> None:
    values = {
        "image": {"registry": "r.example.com/x", "tag": "v2", "pullSecrets": ["pull"]},
        "gateway": {"image": "elsewhere.example.com/gateway@sha256:abc"},
    }
    objects = helm.template(**values)
    operator = named(objects, "Deployment", "overspill-operator")["spec"]["template"]["spec"]
    gateway = named(objects, "Deployment", "overspill-gateway")["spec"]["template"]["spec"]
    assert operator["containers"][0]["image"] == "r.example.com/x/operator:v2"
    assert operator["imagePullSecrets"] == [{"name": "pull"}]
    assert gateway["containers"][0]["image"] == "elsewhere.example.com/gateway@sha256:abc"
    engine = env(named(objects, "Deployment", "overspill-operator"))["OVERSPILL_ENGINE_IMAGE"]
    assert engine == "r.example.com/x/engine-cpu:v2"


def test_a_longer_drain_is_given_the_time_it_needs(helm: Helm) -> None:
    objects = helm.template(gateway={"drainSeconds": 600})
    gateway = named(objects, "Deployment", "overspill-gateway")
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 615
    assert env(gateway)["OVERSPILL_GATEWAY_DRAIN"] == "600s"


def test_a_proxy_is_the_gateways_alone(helm: Helm) -> None:
    objects = helm.template(gateway={"httpsProxy": "http://p:3128", "noProxy": "a.example"})
    gateway = env(named(objects, "Deployment", "overspill-gateway"))
    assert (gateway["HTTPS_PROXY"], gateway["NO_PROXY"]) == ("http://p:3128", "a.example")
    assert str(objects).count("http://p:3128") == 1


def test_large_numbers_are_written_as_numbers(helm: Helm) -> None:
    objects = helm.template(gateway={"maxBodyBytes": 104857600})
    gateway = env(named(objects, "Deployment", "overspill-gateway"))
    assert gateway["OVERSPILL_GATEWAY_MAX_BODY_BYTES"] == "104857600"


def test_definitions_are_kept_by_an_uninstall_and_may_be_left_out(helm: Helm) -> None:
    definitions = [o for o in helm.template() if o["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == len(RESOURCES)
    for definition in definitions:
        assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    without = helm.template(crds={"install": False})
    assert not [o for o in without if o["kind"] == "CustomResourceDefinition"]


def test_the_record_of_what_was_spent_is_kept_and_never_pruned(helm: Helm) -> None:
    maps = [o["metadata"] for o in helm.template() if o["kind"] == "ConfigMap"]
    (record,) = [m for m in maps if m["name"].endswith("-ledger")]
    assert record["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    }


def test_network_policies_may_be_left_out_and_let_a_scraper_in(helm: Helm) -> None:
    without = helm.template(networkPolicy={"enabled": False})
    assert not [o for o in without if o["kind"] == "NetworkPolicy"]
    objects = helm.template(networkPolicy={"scrapeNamespaces": ["monitoring"]})
    policy = named(objects, "NetworkPolicy", "overspill-operator")
    peers = policy["spec"]["ingress"][0]["from"]
    assert {"kubernetes.io/metadata.name": "monitoring"} in [
        p.get("namespaceSelector", {}).get("matchLabels") for p in peers
    ]


def test_network_policies_of_all_parts_are_the_golden_ones(helm: Helm) -> None:
    golden = yaml.safe_load((ROOT / "tests/unit/chart/network.golden.yaml").read_text())
    scraped = {"scrapeNamespaces": ["monitoring"]}
    objects = helm.template(prometheus={"enabled": True}, networkPolicy=scraped)
    assert reach(objects) == golden["with everything"]


def test_another_release_has_names_of_its_own(helm: Helm) -> None:
    text = helm("template", "second", str(CHART), "-n", "other", *settings(PROVIDERS))
    objects = [o for o in yaml.safe_load_all(text) if o]
    ours = [o for o in objects if o["kind"] != "CustomResourceDefinition"]
    assert all(o["metadata"]["name"].startswith("second-") for o in ours)
