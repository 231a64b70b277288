"""After a reconcile `kubectl diff` of every sample is empty: nothing rewrites a user's spec."""

from pathlib import Path

import pytest
import yaml

from e2e.story import Story
from lab.kube import ROOT, eventually

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_diff_is_empty(story: Story, path: Path) -> None:
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    for document in documents:
        document["metadata"].pop("namespace", None)
        if document["kind"] == "Namespace":
            continue
    text = yaml.safe_dump_all([d for d in documents if d["kind"] != "Namespace"])
    story.kube.kubectl("apply", "-n", story.namespace, "-f", "-", stdin=text)

    def reconciled() -> bool:
        services = story.kube.list("infsvc", story.namespace)
        return all(
            s.get("status", {}).get("observedGeneration") == s["metadata"]["generation"]
            for s in services
        )

    eventually("every service is reconciled", reconciled, timeout=60)
    diff = story.kube.command(
        "kubectl", "diff", "-n", story.namespace, "-f", "-", stdin=text, check=False
    )
    assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr
