"""What users decide in a replica's pod, and what nobody does (S21).

The list itself is ``pod_fields.golden.yaml``, which `make verify` compares with what is rendered.
"""

import re
from collections.abc import Iterator
from typing import Any

import pod_fields
import yaml

from overspill.api.crd import RESOURCES, crd

GOLDEN = yaml.safe_load(pod_fields.GOLDEN.read_text())
USERS: dict[str, list[str]] = GOLDEN["users"]
FIXED: dict[str, str] = GOLDEN["fixed"]

# Nowhere in a pod, whoever decides it.
NOWHERE = re.compile(
    r"host(Path|Network|PID|IPC|Port|Users|Aliases)|privileged|procMount|nodeName|subPath|"
    r"capabilities\.add|ephemeralContainers|runtimeClassName|projected|downwardAPI|configMap|"
    r"secretKeyRef|envFrom|lifecycle\.postStart|\.exec\."
)
# In no resource of ours: files, accounts and rights are not for users to name.
# https://nvd.nist.gov/vuln/detail/CVE-2026-77524
NO_FIELD = re.compile(
    r"serviceAccount|host(Path|Network|PID|IPC)|securityContext|privileged|runAs|capabilit|"
    r"seccomp|appArmor|valueFrom|volume|nodeName|initContainers|sidecar|automount",
    re.IGNORECASE,
)


def all_fields(schema: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every field of a schema."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from all_fields(inner, f"{path}.{name}")
    if "items" in schema:
        yield from all_fields(schema["items"], path)


FIELDS = {
    f"{resource.kind}{path}"
    for resource in RESOURCES
    for version in crd(resource)["spec"]["versions"]
    for path in all_fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
}


def test_every_field_was_tried() -> None:
    assert [path for path, values in pod_fields.variants() if not values] == []


def test_what_the_restricted_standard_asks_for_is_nobodys_choice() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    assert not [path for path in USERS if "securityContext" in path]
    containers = ("containers[engine]", "initContainers[loader]", "initContainers[drain]")
    wanted = {
        "spec.securityContext.runAsNonRoot": "true",
        "spec.securityContext.seccompProfile.type": "RuntimeDefault",
    }
    for container in containers:
        wanted |= {
            f"spec.{container}.securityContext.allowPrivilegeEscalation": "false",
            f"spec.{container}.securityContext.readOnlyRootFilesystem": "true",
            f"spec.{container}.securityContext.capabilities.drop[]": "ALL",
        }
    assert {path: FIXED.get(path) for path in wanted} == wanted


def test_nobody_gets_a_token_or_another_account() -> None:
    assert FIXED["spec.automountServiceAccountToken"] == "false"
    assert USERS["spec.serviceAccountName"] == ["service.metadata.name"]


def test_a_secret_is_named_by_one_field_and_read_by_the_loader() -> None:
    secrets = {path: fields for path, fields in USERS.items() if "secret" in path.lower()}
    assert secrets == {
        "spec.volumes[model-secret].secret.secretName": ["service.model.secretRef.name"]
    }
    mounts = [path for path in FIXED if "[model-secret].mountPath" in path]
    assert mounts == ["spec.initContainers[loader].volumeMounts[model-secret].mountPath"]


def test_volumes_are_of_these_kinds() -> None:
    parts = [re.match(r"spec\.volumes\[[a-z-]+\]\.(\w+)", path) for path in (*USERS, *FIXED)]
    kinds = {part[1] for part in parts if part}
    assert kinds == {"emptyDir", "image", "persistentVolumeClaim", "secret"}


def test_nothing_of_the_node_is_reached() -> None:
    assert [path for path in (*USERS, *FIXED) if NOWHERE.search(path)] == []


def test_no_field_names_a_file_an_account_or_a_right() -> None:
    assert len(FIELDS) > 100
    assert [path for path in sorted(FIELDS) if NO_FIELD.search(path)] == []


def test_another_namespace_is_named_only_where_its_owner_lists_ours() -> None:
    """A provider's ``allowedNamespaces`` opens what a service's reference names."""
    named = {path for path in FIELDS if "namespace" in path.lower()}
    assert named == {
        "InferenceService.spillover.providers.namespace",
        "InferenceProvider.allowedNamespaces",
    }
