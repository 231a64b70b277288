"""A model from a bucket: its progress is seen, it serves, and a second replica loads nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.story import Story, assert_no_failure, restricted_pod
from lab import platform
from lab.kube import ROOT, eventually
from lab.load import send_one

FOLDER = ROOT / "build" / "e2e" / "cache"  # on the node, which is this machine
CLAIM = "cache"
PORT = 9000
# A bucket `models` with one object, read-only, without a key; slow, so that there is something to
# watch. It prints each request for the object's bytes.
BUCKET = """
import glob, http.server, os, time
path = glob.glob("/model/*.gguf")[0]
size = os.path.getsize(path)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self, first=None):
        if self.path != "/models/small.gguf":
            return self.send_error(404)
        self.send_response(200 if first is None else 206)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(size - (first or 0)))
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
    def do_GET(self):
        asked = self.headers.get("Range")
        first = int(asked[6:].split("-")[0]) if asked else None
        print("GET from", first, flush=True)
        self.do_HEAD(first)
        with open(path, "rb") as file:
            file.seek(first or 0)
            while data := file.read(1 << 19):
                self.wfile.write(data)
                time.sleep(0.06)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 9000), Handler).serve_forever()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that any user may write to."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    FOLDER.chmod(0o777)
    yield FOLDER
    shutil.rmtree(FOLDER)


def bucket(story: Story) -> None:
    """Start the bucket, filled from the model's image."""
    pod = restricted_pod("bucket", ["python3", "-c", BUCKET])
    pod["metadata"]["labels"] = {"app": "bucket"}
    container = pod["spec"]["containers"][0]
    container["volumeMounts"] = [{"name": "model", "mountPath": "/model", "readOnly": True}]
    container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    pod["spec"]["volumes"] = [{"name": "model", "image": {"reference": platform.MODEL}}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bucket"},
        "spec": {"selector": {"app": "bucket"}, "ports": [{"port": PORT}]},
    }
    story.kube.apply(pod, service, namespace=story.namespace)
    story.kube.kubectl(
        "wait", "pod/bucket", "--for=condition=Ready", "-n", story.namespace, "--timeout=60s"
    )


def claim(story: Story, folder: Path) -> None:
    """A volume on the node and the claim that binds it."""
    size = {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    reference = {"name": CLAIM, "namespace": story.namespace}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": story.namespace},
        "spec": common
        | {
            "capacity": size,
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": reference,
            "hostPath": {"path": str(folder)},
        },
    }
    wanted = common | {"resources": {"requests": size}, "volumeName": story.namespace}
    bound = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": reference,
        "spec": wanted,
    }
    story.kube.apply(volume, bound)


def loads(story: Story) -> list[str]:
    """The requests for the object's bytes so far."""
    return story.kube.kubectl("logs", "bucket", "-n", story.namespace).splitlines()


def model(story: Story) -> dict[str, Any]:
    """The service's model."""
    return {
        "uri": "s3://models/small.gguf",
        "endpoint": f"http://bucket.{story.namespace}.svc.cluster.local:{PORT}",
        "cache": {"claimName": CLAIM},
        "contextLength": 1024,
    }


def progress(story: Story) -> dict[str, Any]:
    """What the status says of a load that goes on."""
    found = dict(story.status("chat").get("model") or {})
    return found if found.get("loadedBytes") else {}


def test_model_from_s3(story: Story, folder: Path) -> None:
    bucket(story)
    claim(story, folder)
    try:
        story.apply("chat", model=model(story), scaling={"maxReplicas": 2})
        seen = eventually("the status shows progress", lambda: progress(story), 30)
        told = story.condition("chat", "ModelReady")
        assert seen["totalBytes"] > 90_000_000
        assert (told["status"], told["reason"]) == ("False", "Loading")
        assert " MB (" in told["message"], told
        assert " MB (" in platform.overspill(
            story.kube, "check", "-n", story.namespace, check=False
        )

        story.wait_ready("chat", 1)
        assert_no_failure([send_one(story.client("chat"))])
        assert "model" not in story.status("chat")
        assert loads(story) == ["GET from None"]

        scaling = {"minReplicas": 2, "maxReplicas": 2}
        story.kube.patch("infsvc", "chat", story.namespace, {"spec": {"scaling": scaling}})
        story.wait_ready("chat", 2)
        assert loads(story) == ["GET from None"]
        print(f"seen while it was loaded: {told['message']}")
    finally:
        story.kube.kubectl("delete", "pv", story.namespace, "--wait=false")
