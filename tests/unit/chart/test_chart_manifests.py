"""The plain install, as rendered from the chart with its default values (no helm needed)."""

from typing import Any

import pytest
import yaml
from rights import INSTALL, ROOT, matrix, objects

from overspill import __version__
from overspill.api.crd import MAX_BYTES, RESOURCES

MANIFEST = objects(INSTALL.read_text())
DEPLOYMENTS = [o for o in MANIFEST if o["kind"] == "Deployment"]
ROLES = [o for o in MANIFEST if o["kind"] in ("Role", "ClusterRole")]


def name(obj: dict[str, Any]) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"


def test_every_right_is_in_the_golden_matrix() -> None:
    golden = yaml.safe_load((ROOT / "tests/unit/chart/rights.golden.yaml").read_text())
    assert matrix(MANIFEST) == golden


def test_nobody_has_secrets_cluster_wide_and_the_operator_has_none_at_all() -> None:
    rights = matrix(MANIFEST)
    everywhere = [line for account in rights.values() for line in account.get("cluster", [])]
    assert not [line for line in everywhere if "secrets" in line]
    operator = [line for lines in rights["overspill-operator"].values() for line in lines]
    assert not [line for line in operator if "secrets" in line]


@pytest.mark.parametrize("role", ROLES, ids=name)
def test_no_role_is_a_way_to_more_rights(role: dict[str, Any]) -> None:
    for rule in role["rules"]:
        assert not {"*", "escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert "*" not in rule["resources"] + rule["apiGroups"]
        forbidden = {
            "pods/exec",
            "pods/attach",
            "pods/ephemeralcontainers",
            "serviceaccounts/token",
        }
        assert not forbidden & set(rule["resources"])
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name)
def test_pods_are_restricted(deployment: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name)
def test_pods_are_probed_bounded_and_replaced_without_a_gap(deployment: dict[str, Any]) -> None:
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]


def test_a_gateway_may_drain_before_it_is_killed() -> None:
    (gateway,) = [d for d in DEPLOYMENTS if d["metadata"]["name"] == "overspill-gateway"]
    pod = gateway["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    drain = next(e["value"] for e in container["env"] if e["name"] == "OVERSPILL_GATEWAY_DRAIN")
    leave = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > int(drain.removesuffix("s")) + leave


def test_whoever_may_view_or_edit_a_namespace_may_so_with_our_resources() -> None:
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    verbs: dict[str, set[str]] = {"view": set(), "edit": set(), "admin": set()}
    for role in ROLES:
        for level in verbs:
            if role["metadata"]["labels"].get(f"{aggregate}{level}") == "true":
                verbs[level] |= {v for rule in role["rules"] for v in rule["verbs"]}
    assert verbs["view"] == {"get", "list", "watch"}
    assert verbs["edit"] == verbs["admin"] > verbs["view"]


def test_every_namespaced_object_says_where_it_is() -> None:
    cluster_wide = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    for obj in MANIFEST:
        assert ("namespace" in obj["metadata"]) != (obj["kind"] in cluster_wide), name(obj)


def test_definitions_fit_into_the_annotation_of_client_side_apply() -> None:
    for resource in RESOURCES:
        assert (ROOT / "crds" / f"{resource.plural}.yaml").stat().st_size < MAX_BYTES


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((ROOT / "charts/overspill/Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
