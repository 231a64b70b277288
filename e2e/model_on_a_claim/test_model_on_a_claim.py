"""A model on a PersistentVolumeClaim: named before the claim is there, served once it is."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.story import Story, assert_no_failure, restricted_pod
from lab import platform
from lab.kube import ROOT
from lab.load import send_one

FOLDER = ROOT / "build" / "e2e" / "claim"  # on the node, which is this machine
CLAIM = "weights"
COPY = (
    "import glob, os, shutil; os.makedirs('/claim/small', exist_ok=True); "
    "shutil.copy(glob.glob('/model/*.gguf')[0], '/claim/small/model.gguf')"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that any user may write to."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    FOLDER.chmod(0o777)
    yield FOLDER
    shutil.rmtree(FOLDER)


def claim(story: Story, folder: Path) -> list[dict[str, Any]]:
    """A volume on the node and the claim that binds it."""
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": story.namespace},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"name": CLAIM, "namespace": story.namespace},
            "hostPath": {"path": str(folder)},
        },
    }
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": size},
        "storageClassName": "",
        "volumeName": story.namespace,
    }
    metadata = {"name": CLAIM, "namespace": story.namespace}
    bound = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
    return [volume, bound | {"spec": spec}]


def copy_model(story: Story) -> None:
    """Fill the claim from the model's image, as a user's download job would."""
    pod = restricted_pod("copy", ["python3", "-c", COPY])
    pod["spec"] |= {
        "restartPolicy": "Never",
        "volumes": [
            {"name": "model", "image": {"reference": platform.MODEL}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}},
        ],
    }
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "model", "mountPath": "/model", "readOnly": True},
        {"name": "claim", "mountPath": "/claim"},
    ]
    story.kube.apply(pod, namespace=story.namespace)
    story.kube.kubectl(
        "wait", "pod/copy", "--for=jsonpath={.status.phase}=Succeeded",
        "-n", story.namespace, "--timeout=60s",
    )  # fmt: skip


def test_model_on_a_claim(story: Story, folder: Path) -> None:
    story.apply("chat", model={"uri": f"pvc://{CLAIM}/small/model.gguf", "contextLength": 1024})
    assert story.wait_condition("chat", "ModelReady", "False") == "ClaimNotFound"
    assert CLAIM in story.condition("chat", "ModelReady")["message"]

    story.kube.apply(*claim(story, folder))
    try:
        copy_model(story)
        story.wait_condition("chat", "ModelReady", "True", timeout=120)
        story.wait_ready("chat", 1)
        assert_no_failure([send_one(story.client("chat"))])
    finally:
        story.kube.kubectl("delete", "pv", story.namespace, "--wait=false")
