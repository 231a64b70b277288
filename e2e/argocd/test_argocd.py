"""A service lives under Argo CD: Synced and Healthy while it scales, after a change, after drift.

The commands and the Application are those of docs/how-to/gitops-argocd.md. Argo CD itself is the
real one (hack/lab/argocd.py); its repository is a git server on this machine.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.data_path import LONG, record
from e2e.story import Story
from lab import argocd, platform
from lab.argocd import ArgoCD
from lab.kube import ROOT, Kube, eventually

PAGE = (ROOT / "docs" / "how-to" / "gitops-argocd.md").read_text()
APPLICATION = "models"  # the page's name for it
CHILD = "chat-engine"  # what all children of the service "chat" are called
GOOD = ("Synced", "Healthy")
WATCHED = 300 if LONG else 0  # seconds for which it must stay so at least


def blocks(language: str) -> list[str]:
    """The page's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def argo(installed: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    """Argo CD, told what healthy means by the page's first command."""
    folder: Path = tmp_path_factory.mktemp("argocd")
    with argocd.running(installed, folder) as running:
        installed.command("bash", "-ec", f"cd {ROOT} && {blocks('sh')[0]}")
        yield running


def application(argo: ArgoCD, namespace: str) -> dict[str, Any]:
    """The page's Application, for this repository and namespace."""
    obj: dict[str, Any] = yaml.safe_load(blocks("yaml")[0])
    obj["spec"]["source"]["repoURL"] = argo.repository.url
    obj["spec"]["destination"]["namespace"] = namespace
    return obj


def commit(argo: ArgoCD, **scaling: Any) -> str:
    """Commit the service as it should be; Argo CD looks at once."""
    spec = {
        "scaling": {"minReplicas": 0, "maxReplicas": 2, "idleAfter": "10s", **scaling},
        "rollout": {"drain": "20s"},
    }
    text = yaml.safe_dump(platform.service("chat", spec))
    return argo.repository.commit({"services/chat.yaml": text}, f"chat: {scaling}")


def wait_good(argo: ArgoCD, what: str, timeout: float = 60) -> None:
    """Wait until Argo CD shows the Application as it should be."""
    eventually(f"{what}: {GOOD}", lambda: argo.state(APPLICATION) == GOOD, timeout)


def managers(obj: dict[str, Any]) -> set[str]:
    """Who has written to an object."""
    return {entry["manager"] for entry in obj["metadata"]["managedFields"]}


def test_a_service_under_argo_cd(story: Story, argo: ArgoCD) -> None:
    try:
        tell(story, argo)
    except AssertionError:
        print(argo.tail())
        raise
    finally:  # or Argo CD would make anew what the story's end deletes
        remove(story.kube)


def tell(story: Story, argo: ArgoCD) -> None:
    """The story, act by act."""
    commit(argo)
    story.kube.apply(application(argo, story.namespace))
    wait_good(argo, "a service at zero", timeout=180)  # its controller starts meanwhile
    assert story.pods("chat") == []
    scales_from_zero_and_back(story, argo)
    takes_a_change(story, argo)
    keeps_what_is_committed(story, argo)
    leaves_nothing(story)


def scales_from_zero_and_back(story: Story, argo: ArgoCD) -> None:
    """0 → 2 → 0 under load, and Argo CD never sees a difference."""
    generation = story.service("chat")["metadata"]["generation"]
    began = time.monotonic()
    with argo.watched(APPLICATION) as seen:
        with story.load("chat").running(8) as load:
            story.wait_ready("chat", 2, timeout=120)
        eventually("no pod is left", lambda: not story.pods("chat"), timeout=120)
        up = round(time.monotonic() - began)
        eventually(
            f"{WATCHED} s have passed", lambda: time.monotonic() - began > WATCHED, WATCHED + 10
        )
        wait_good(argo, "at zero again")
    assert set(seen) == {GOOD}, seen
    argo.refresh(APPLICATION)  # a hard one may show Unknown while it is under way
    wait_good(argo, "compared anew")
    assert story.service("chat")["metadata"]["generation"] == generation
    took = round(time.monotonic() - began)
    record(
        f"argo cd: 0 to 2 to 0 in {up} s, {len(load.sent)} requests, Synced and Healthy {took} s"
    )


def takes_a_change(story: Story, argo: ArgoCD) -> None:
    """A commit is applied, and Healthy when a replica runs it."""
    revision = commit(argo, minReplicas=1)
    argo.refresh(APPLICATION)

    def applied() -> bool:
        sync = argo.application(APPLICATION)["status"]["sync"]
        return bool(sync["revision"] == revision and argo.state(APPLICATION) == GOOD)

    eventually("the commit is Synced and Healthy", applied, timeout=90)
    assert story.service("chat")["spec"]["scaling"]["minReplicas"] == 1
    story.wait_ready("chat", 1)
    wait_good(argo, "one replica")


def keeps_what_is_committed(story: Story, argo: ArgoCD) -> None:
    """A hand's edit of the service is Argo CD's to undo, one of a child is the operator's."""
    kube, where = story.kube, story.namespace
    kube.patch("infsvc", "chat", where, {"spec": {"scaling": {"maxReplicas": 7}}})
    eventually(
        "Argo CD has put the service back",
        lambda: story.service("chat")["spec"]["scaling"]["maxReplicas"] == 2,
        timeout=60,
    )
    wait_good(argo, "after self-heal")

    deployment = kube.get("deployment", CHILD, where)
    assert deployment is not None
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    drifted = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": grace + 1}}}}
    kube.patch("deployment", CHILD, where, drifted)

    def restored() -> bool:
        now = kube.get("deployment", CHILD, where) or {}
        return bool(now["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace)

    eventually("the operator has put the Deployment back", restored, timeout=60)
    story.wait_ready("chat", 1)
    wait_good(argo, "after a drifted child")
    for kind in ("deployment", "service", "pdb", "networkpolicy", "serviceaccount"):
        text = kube.kubectl("get", kind, CHILD, "-n", where, "-o", "yaml", "--show-managed-fields")
        assert not any(m.startswith("argocd") for m in managers(yaml.safe_load(text)))


def leaves_nothing(story: Story) -> None:
    """Deleting the Application deletes the service, and with it all of its children."""
    remove(story.kube)
    assert story.service("chat") == {}
    eventually(
        "no child is left",
        lambda: not story.kube.list("deployments", story.namespace),
        timeout=60,
    )


def remove(kube: Kube) -> None:
    """Delete the Application, and wait until Argo CD has deleted what it applied."""
    kube.delete("applications.argoproj.io", APPLICATION, argocd.NAMESPACE, "--timeout=100s")
