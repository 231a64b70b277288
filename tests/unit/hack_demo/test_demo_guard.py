"""The demo leaves alone what it did not make."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from demo import guard
from lab import platform
from lab.kube import CommandFailed, Kube

NAMES = ("demo", "cloud", "overspill-system")
# Answers `kubectl … get namespace NAME …` and `… get KIND …` from files, and keeps every call.
KUBECTL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
case " $* " in
*" get namespace "*) cat "$here/$5.json" 2>/dev/null ;;
*" get "*) cat "$here/$4.json" 2>/dev/null || echo '{"items": []}' ;;
esac
exit 0
"""


@pytest.fixture
def kube(tmp_path: Path) -> Kube:
    """A cluster with a namespace for each file beside kubectl."""
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    return Kube(kubeconfig="none", path=str(tmp_path), context="theirs")


def put(kube: Kube, name: str, *, made_by_us: bool) -> None:
    obj = platform.namespace(name)
    if not made_by_us:
        del obj["metadata"]["labels"]
    Path(kube.path, f"{name}.json").write_text(json.dumps(obj))


def define(kube: Kube, *owner: str, group: str = "overspill.dev") -> None:
    """A definition; ``owner``: Helm's release and its namespace."""
    names = ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace")
    annotations = dict(zip(names, owner, strict=False))
    metadata = {"name": f"inferenceservices.{group}", "annotations": annotations}
    crds = {"items": [{"metadata": metadata, "spec": {"group": group}}]}
    Path(kube.path, "customresourcedefinitions.json").write_text(json.dumps(crds))


def test_an_empty_cluster_and_an_earlier_demo_may_be_used(kube: Kube) -> None:
    guard.check(kube, NAMES)
    for name in NAMES:
        put(kube, name, made_by_us=True)
    guard.check(kube, NAMES)
    assert guard.ours(kube, NAMES) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_somebodys_namespace_stops_the_demo(kube: Kube, name: str) -> None:
    put(kube, name, made_by_us=False)
    with pytest.raises(guard.NotOurs, match=name):
        guard.check(kube, NAMES)
    assert guard.ours(kube, NAMES) == []


@pytest.mark.parametrize("owner", [("overspill", "ml"), ("ours", "overspill-system"), ()])
@pytest.mark.parametrize("demo_ran", [False, True])
def test_definitions_of_another_release_stop_the_demo(
    kube: Kube, owner: tuple[str, ...], *, demo_ran: bool
) -> None:
    """They exist once in a cluster: helm would fail on them, and a purge would take them along."""
    if demo_ran:
        put(kube, "overspill-system", made_by_us=True)
    define(kube, *owner)
    with pytest.raises(guard.NotOurs, match=r"inferenceservices\.overspill\.dev"):
        guard.check(kube, NAMES)


def test_definitions_without_the_demos_namespace_stop_it_too(kube: Kube) -> None:
    define(kube, "overspill", "overspill-system")
    with pytest.raises(guard.NotOurs, match="uninstall --purge"):
        guard.check(kube, NAMES)


def test_the_demos_own_definitions_and_other_groups_are_no_obstacle(kube: Kube) -> None:
    put(kube, "overspill-system", made_by_us=True)
    define(kube, "overspill", "overspill-system")
    guard.check(kube, NAMES)
    define(kube, "istio", "istio-system", group="example.com")
    guard.check(kube, NAMES)


@pytest.fixture
def down(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Runs `make demo-down` where nobody can be asked; returns what it deleted."""
    from demo import down

    monkeypatch.setattr(platform, "LOCAL_BIN", kube.path)
    monkeypatch.setenv("DEMO_CONTEXT", "theirs")

    def run() -> list[str]:
        down.main()
        calls = Path(kube.path, "calls").read_text().splitlines()
        return [c for c in calls if " delete " in c]

    return run


def test_nothing_is_removed_that_no_demo_made(
    kube: Kube, down: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kube, "demo", made_by_us=True)
    put(kube, "overspill-system", made_by_us=False)
    monkeypatch.setenv("YES", "1")
    assert down() == ["--context theirs delete namespace demo"]


def test_nothing_is_removed_where_nobody_said_yes(
    kube: Kube,
    down: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(kube, "demo", made_by_us=True)
    monkeypatch.delenv("YES", raising=False)
    assert down() == []
    assert "YES=1" in capsys.readouterr().out


def test_what_cannot_be_purged_keeps_its_namespaces(
    kube: Kube, down: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command refuses it when another release is served by the same definitions."""

    def refused(*_: object, **__: object) -> str:
        raise CommandFailed("release second in namespace ml serves with the same definitions")

    put(kube, "overspill-system", made_by_us=True)
    Path(kube.path, "secrets.json").write_text('{"items": [{}]}')
    monkeypatch.setattr(platform, "overspill", refused)
    monkeypatch.setenv("YES", "1")
    assert down() == []
