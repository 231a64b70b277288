"""What `helm uninstall` leaves, what a reinstall adopts, and what a purge removes."""

from collections.abc import Iterator

import pytest

from e2e.story import Story
from lab import platform
from lab.kube import Kube, eventually
from lab.load import send_one
from overspill.api.crd import RESOURCES
from overspill.api.names import LABEL_KEY

KEYS = f"{LABEL_KEY}=true"  # the Secrets of clients' keys
RECORD = f"configmap/{platform.RELEASE}-ledger"  # of what was spent


@pytest.fixture
def reinstall(installed: Kube) -> Iterator[None]:
    """Whatever happened here, the next story finds Overspill installed."""
    yield
    platform.install(installed, platform.values())
    platform.start_cloud(installed, ["*"])


def ours(kube: Kube) -> list[str]:
    """What the release has in its namespace, in a provider's and in the cluster, but for CRDs."""
    listed = ""
    for namespace in (platform.NAMESPACE, platform.CLOUD):
        listed += kube.kubectl(
            "get", "all,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb",
            "-n", namespace, "-l", "app.kubernetes.io/part-of=overspill", "-o", "name",
        )  # fmt: skip
    wide = kube.kubectl(
        "get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=overspill",
        "-o", "name",
    )  # fmt: skip
    leases = kube.kubectl("get", "leases", "-n", platform.NAMESPACE, "-o", "name")
    return [*listed.split(), *wide.split(), *leases.split()]


def uid(kube: Kube, name: str) -> str:
    """Tell an object from another one of its name."""
    return kube.kubectl("get", name, "-n", platform.NAMESPACE, "-o", "jsonpath={.metadata.uid}")


def crds(kube: Kube) -> list[str]:
    """Our CRDs."""
    names = kube.kubectl("get", "crds", "-o", "name").split()
    return [n for n in names if n.endswith(".overspill.dev")]


def test_uninstall_and_purge(story: Story, reinstall: None) -> None:
    kube = story.kube
    story.apply("chat")
    story.wait_ready("chat", 1)
    engine = story.pods("chat")[0]["metadata"]["uid"]
    assert ours(kube)
    assert kube.list("roles", platform.CLOUD), "the gateway may read the provider's Secret"
    assert kube.list("secrets", platform.NAMESPACE, KEYS)

    uninstall = ("helm", "uninstall", platform.RELEASE, "-n", platform.NAMESPACE)
    kube.command(*uninstall, "--wait", "--timeout", "200s", timeout=210)
    eventually("only the record and the CRDs are left", lambda: ours(kube) == [RECORD], timeout=60)
    assert len(crds(kube)) == len(RESOURCES)
    assert story.pods("chat")[0]["metadata"]["uid"] == engine

    record = uid(kube, RECORD)
    platform.install(kube, platform.values())
    assert uid(kube, RECORD) == record, "a new install goes on with it"
    eventually(
        "the gateway knows the key again", lambda: not send_one(story.client("chat")).failed, 60
    )
    assert [p["metadata"]["uid"] for p in story.pods("chat")] == [engine]

    listed = platform.overspill(kube, "uninstall", "--purge", "--dry-run")
    assert f"{story.namespace}/chat" in listed
    assert f"{platform.NAMESPACE}/{platform.RELEASE}-ledger" in listed
    assert len(crds(kube)) == len(RESOURCES)
    platform.overspill(kube, "uninstall", "--purge", "--yes", timeout=180)
    assert crds(kube) == []
    eventually("nothing of ours is left", lambda: not ours(kube), timeout=60)
    assert kube.list("secrets", platform.NAMESPACE, KEYS) == []
    eventually("the engine is gone", lambda: story.pods("chat") == [], timeout=90)
