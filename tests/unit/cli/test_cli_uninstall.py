"""`overspill uninstall` as a user runs it: what goes, and what it leaves alone."""

import json

import pytest
from cli_world import Command, World

from overspill.cluster.kinds import (
    CONFIG_MAP,
    CRD,
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_SERVICE,
    LEASE,
    SECRET,
    SERVICE_ACCOUNT,
)

SYSTEM = "overspill-system"
CHART = {"app.kubernetes.io/part-of": "overspill", "app.kubernetes.io/instance": "overspill"}
PURGE = ("uninstall", "--purge", "--yes")


def installed(world: World) -> None:
    """What an install leaves in a cluster, with one service and one key."""
    world.put(DEPLOYMENT, "overspill-gateway", SYSTEM, metadata={"labels": CHART})
    world.put(SERVICE_ACCOUNT, "overspill-gateway", SYSTEM, metadata={"labels": CHART})
    world.put(CONFIG_MAP, "overspill-ledger", SYSTEM, metadata={"labels": CHART})
    world.put(CONFIG_MAP, "overspill-dashboard", SYSTEM, metadata={"labels": CHART})
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


def helm(release: str, namespace: str) -> dict[str, str]:
    """Helm's marks on what a release owns."""
    return {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}


def operator(world: World, release: str, namespace: str, watched: str = "") -> None:
    """The operator of a release."""
    labels = CHART | {
        "app.kubernetes.io/instance": release, "app.kubernetes.io/component": "operator",
    }  # fmt: skip
    env = [{"name": "OVERSPILL_WATCH_NAMESPACES", "value": watched}]
    spec = {"template": {"spec": {"containers": [{"name": "operator", "env": env}]}}}
    metadata = {"labels": labels, "annotations": helm(release, namespace)}
    world.put(DEPLOYMENT, f"{release}-operator", namespace, metadata=metadata, spec=spec)


def definition(world: World, plural: str, release: str, namespace: str) -> None:
    """A definition that Helm installed."""
    labels = {"app.kubernetes.io/part-of": "overspill"}
    metadata = {"labels": labels, "annotations": helm(release, namespace)}
    world.put(CRD, f"{plural}.overspill.dev", metadata=metadata)


def test_uninstall_lists_first_and_keeps_what_is_served(world: World, overspill: Command) -> None:
    installed(world)
    listed = overspill("uninstall", "--dry-run", "-o", "json")
    names = [(o["kind"], o["name"]) for o in json.loads(listed.stdout)]
    assert names == [
        ("Deployment", "overspill-gateway"),
        ("ConfigMap", "overspill-dashboard"),
        ("ServiceAccount", "overspill-gateway"),
        ("Lease", "overspill-operator"),
        ("Secret", "sh.helm.release.v1.overspill.v1"),
    ]
    assert not world.deleted
    assert overspill("uninstall", "--yes").returncode == 0
    assert {o["metadata"]["name"] for o in world.objects.values()} == {
        "overspill-engine",
        "overspill-ledger",
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


def test_a_purge_takes_no_definition_of_another_release(world: World, overspill: Command) -> None:
    installed(world)
    definition(world, "inferenceservices", "overspill", "ml")
    done = overspill(*PURGE)
    assert done.returncode == 1
    assert "--system-namespace ml" in done.stderr
    assert not world.deleted
    assert overspill("uninstall", "--yes").returncode == 0


def test_a_purge_stops_before_another_operator(world: World, overspill: Command) -> None:
    installed(world)
    operator(world, "overspill", SYSTEM)
    operator(world, "second", "ml")
    done = overspill(*PURGE)
    assert done.returncode == 1
    assert "release second in namespace ml" in done.stderr
    assert not world.deleted


def test_a_mistyped_release_purges_nothing(world: World, overspill: Command) -> None:
    installed(world)
    operator(world, "overspill", SYSTEM)
    done = overspill(*PURGE, "--release", "overspil")
    assert done.returncode == 1
    assert f"--release overspill --system-namespace {SYSTEM}" in done.stderr
    assert not world.deleted


def test_a_purge_keeps_to_the_namespaces_that_its_release_watches(
    world: World, overspill: Command
) -> None:
    operator(world, "overspill", SYSTEM, watched="team-a,team-b")
    for plural in ("inferenceservices", "inferenceproviders"):
        definition(world, plural, "overspill", SYSTEM)
    world.put(INFERENCE_SERVICE, "chat", "team-a")
    world.put(INFERENCE_SERVICE, "theirs", "team-c")
    world.put(INFERENCE_PROVIDER, "cloud", "team-b")
    assert overspill(*PURGE).returncode == 0
    assert sorted(world.objects) == sorted(
        [
            INFERENCE_SERVICE.path("team-c", "theirs"),
            CRD.path("", "inferenceservices.overspill.dev"),  # with it "theirs" would go
        ]
    )


def test_a_release_of_the_same_name_elsewhere_stays(world: World, overspill: Command) -> None:
    operator(world, "overspill", SYSTEM)
    operator(world, "overspill", "ml")
    assert overspill("uninstall", "--yes").returncode == 0
    assert list(world.objects) == [DEPLOYMENT.path("ml", "overspill-operator")]
