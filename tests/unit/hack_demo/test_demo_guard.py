"""The demo leaves alone what it did not make."""

import json
from pathlib import Path

import pytest

from demo import guard
from lab import platform
from lab.kube import Kube

NAMES = ("demo", "cloud", "overspill-system")
# Answers `kubectl … get namespace NAME …` from files, and keeps every call.
KUBECTL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
case " $* " in *" get namespace "*) cat "$here/$5.json" 2>/dev/null ;; esac
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


def test_nothing_is_removed_that_no_demo_made(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    put(kube, "demo", made_by_us=True)
    put(kube, "overspill-system", made_by_us=False)
    monkeypatch.setattr(platform, "LOCAL_BIN", kube.path)
    monkeypatch.setenv("DEMO_CONTEXT", "theirs")
    from demo import down

    assert down.main() == 0
    calls = Path(kube.path, "calls").read_text().splitlines()
    assert [c for c in calls if " delete " in c] == ["--context theirs delete namespace demo"]
