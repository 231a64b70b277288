"""A release on a real API server: what it may do, and that an uninstall finds all of it.

Its pods are scaled to zero: that they start and work is shown by the stories of ``e2e/``.
"""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
import yaml
from chart_world import CHART, Helm, HelmFailed, settings

from overspill.cluster import Cluster
from overspill.cluster.kinds import (
    CLUSTER_ROLE,
    CONFIG_MAP,
    CRD,
    POD,
    ROLE,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)

REVIEW = Kind(
    "authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)


@pytest.fixture
def release(helm: Helm, namespace: str) -> Iterator[str]:
    """A release without pods that watches its own namespace; its name."""
    name = f"t{uuid.uuid4().hex[:6]}"
    values = {
        "image": {"registry": "localhost/overspill"},
        "crds": {"install": False},
        "watchNamespaces": [namespace],
        "operator": {"replicas": 0},
        "gateway": {
            "replicas": 0,
            "providerSecrets": [{"namespace": namespace, "names": ["openai-key"]}],
        },
    }
    helm("install", name, str(CHART), "-n", namespace, *settings(values), "--wait", "--timeout=60s")
    yield name
    helm("uninstall", name, "-n", namespace, "--ignore-not-found")


def overspill(*args: str) -> str:
    """Run the command of this checkout."""
    program = [sys.executable, "-c", "from overspill.cli.main import run; run()", *args]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def may(cluster: Cluster, account: str, verb: str, resource: str, namespace: str) -> bool:
    """Whether a service account of ours may do something; resource is group/plural[=name]."""
    group, _, rest = resource.rpartition("/")
    plural, _, name = rest.partition("=")
    attributes = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    body = {
        "apiVersion": REVIEW.api_version,
        "kind": REVIEW.kind,
        "spec": {
            "user": f"system:serviceaccount:{account}",
            "resourceAttributes": attributes | {"name": name},
        },
    }
    _, answer = await cluster.raw("POST", REVIEW.path(), body=body)
    return bool(json.loads(answer)["status"]["allowed"])


# part, verb, resource, namespace (own: the release's and the watched one), whether it may
RIGHTS = [
    ("operator", "create", "apps/deployments", "own", True),
    ("operator", "create", "apps/deployments", "default", False),
    ("operator", "list", "secrets", "own", False),
    ("operator", "get", "secrets=openai-key", "own", False),
    ("operator", "delete", "overspill.dev/inferenceservices", "own", False),
    ("operator", "update", "overspill.dev/inferenceservices", "own", False),
    ("operator", "create", "pods", "own", False),
    ("operator", "create", "rbac.authorization.k8s.io/rolebindings", "own", False),
    ("gateway", "list", "secrets", "own", True),
    ("gateway", "list", "secrets", "default", False),
    ("gateway", "list", "overspill.dev/inferenceservices", "own", True),
    ("gateway", "create", "pods", "own", False),
    ("gateway", "create", "authentication.k8s.io/tokenreviews", "", True),
]


async def test_rights_as_the_api_server_sees_them(
    cluster: Cluster, release: str, namespace: str
) -> None:
    found = []
    for part, verb, resource, place, _ in RIGHTS:
        where = namespace if place == "own" else place
        allowed = await may(cluster, f"{namespace}:{release}-{part}", verb, resource, where)
        found.append((part, verb, resource, place, allowed))
    assert found == RIGHTS


async def test_rendered_pods_are_admitted_under_the_restricted_standard(
    cluster: Cluster, helm: Helm, namespace: str
) -> None:
    values = {"prometheus": {"enabled": True}, "image": {"registry": "localhost/overspill"}}
    text = helm("template", "x", str(CHART), "-n", namespace, *settings(values))
    for obj in yaml.safe_load_all(text):
        if obj["kind"] == "Deployment":
            pod = obj["spec"]["template"]
            pod["spec"] |= {"serviceAccountName": "default", "imagePullSecrets": []}
            pod |= {"apiVersion": "v1", "kind": "Pod"}
            pod["metadata"] |= {"name": obj["metadata"]["name"]}
            status, answer = await cluster.raw(
                "POST", POD.path(namespace) + "?dryRun=All", body=pod
            )
            assert status == 201, answer


def test_uninstall_removes_all_that_helm_installed_but_the_record(
    helm: Helm, release: str, namespace: str
) -> None:
    target = ("--release", release, "--system-namespace", namespace)
    installed = {
        (o["kind"], o["metadata"]["name"])
        for o in yaml.safe_load_all(helm("get", "manifest", release, "-n", namespace))
        if o
    }
    listed = json.loads(overspill("uninstall", *target, "--dry-run", "-o", "json"))
    history = {("Secret", f"sh.helm.release.v1.{release}.v1")}
    record = ("ConfigMap", f"{release}-ledger")
    assert {(o["kind"], o["name"]) for o in listed} == (installed - {record}) | history
    overspill("uninstall", *target, "--yes")
    with pytest.raises(HelmFailed, match="not found"):
        helm("status", release, "-n", namespace)
    remaining = asyncio.run(left(namespace, release))
    assert remaining == [f"{release}-ledger"]


async def left(namespace: str, release: str) -> list[str]:
    """Names of the release's objects that are still there."""
    labels = f"app.kubernetes.io/instance={release}"
    async with Cluster.connect() as cluster:
        kinds = (SERVICE, SERVICE_ACCOUNT, ROLE, CLUSTER_ROLE, CONFIG_MAP)
        found = [(await cluster.list(kind, labels=labels)).items for kind in kinds]
    return [item["metadata"]["name"] for items in found for item in items]


def test_an_image_that_can_never_be_pulled_fails_at_once(helm: Helm, namespace: str) -> None:
    with pytest.raises(HelmFailed, match=r"image\.registry"):
        helm("install", "x", str(CHART), "-n", namespace, "--set=crds.install=false")


async def test_definitions_applied_alone_are_marked_for_the_chart(cluster: Cluster) -> None:
    applied = json.loads(await asyncio.to_thread(overspill, "crds", "apply", "-o", "json"))
    for name in applied["applied"]:
        metadata = (await cluster.get(CRD, "", name))["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["annotations"]["meta.helm.sh/release-name"] == "overspill"
        assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"
