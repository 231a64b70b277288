"""After a reconcile `kubectl diff` of every sample is empty: nothing rewrites a user's spec."""

from pathlib import Path

import yaml

from e2e.story import Story
from lab.kube import ROOT, eventually

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


def in_any_namespace(path: Path) -> str:
    """A sample's objects without their namespaces."""
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d and d["kind"] != "Namespace"]
    for document in documents:
        document["metadata"].pop("namespace", None)
    return yaml.safe_dump_all(documents)


def wait_reconciled(story: Story, sample: str) -> None:
    """Wait until every service's status is of its present spec."""

    def reconciled() -> bool:
        services = story.kube.list("infsvc", story.namespace)
        return all(
            s.get("status", {}).get("observedGeneration") == s["metadata"]["generation"]
            for s in services
        )

    eventually(f"{sample}: every service is reconciled", reconciled, timeout=60)


def test_diff_is_empty(story: Story) -> None:
    assert len(SAMPLES) >= 8
    for path in SAMPLES:
        text, where = in_any_namespace(path), ("-n", story.namespace, "-f", "-")
        story.kube.kubectl("apply", *where, stdin=text)
        wait_reconciled(story, path.stem)
        diff = story.kube.command("kubectl", "diff", *where, stdin=text, check=False)
        assert (diff.returncode, diff.stdout) == (0, ""), f"{path.name}: {diff.stderr}"
        story.kube.kubectl("delete", *where, stdin=text)
