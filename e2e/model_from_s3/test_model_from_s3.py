"""A model from a bucket: its progress is seen, it serves, and a second replica loads nothing."""

from typing import Any

from e2e import data_path
from e2e.fixtures import claim, start_server
from e2e.story import Story, assert_no_failure, restricted_pod
from lab import platform
from lab.kube import eventually
from lab.load import send_one

CLAIM = "cache"
PORT = 9000
# A bucket `models` with one object, read-only, without a key. After 32 MB it sends just enough to
# be alive until /tmp/go is there, so that there is something to watch; the status tells a load's
# bytes every 30 s. It prints each request for the object's bytes.
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
                if file.tell() >= 32_000_000 and not os.path.exists("/tmp/go"):
                    time.sleep(3)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 9000), Handler).serve_forever()
"""


def bucket(story: Story) -> None:
    """Start the bucket, filled from the model's image."""
    pod = restricted_pod("bucket", ["python3", "-c", BUCKET])
    container = pod["spec"]["containers"][0]
    container["volumeMounts"] = [{"name": "model", "mountPath": "/model", "readOnly": True}]
    container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    pod["spec"]["volumes"] = [{"name": "model", "image": {"reference": platform.MODEL}}]
    start_server(story.kube, story.namespace, pod, PORT)


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


def test_model_from_s3(story: Story) -> None:
    bucket(story)
    with claim(story, CLAIM, "ReadWriteMany"):
        story.apply("chat", model=model(story), scaling={"maxReplicas": 2})
        seen = eventually("the status shows progress", lambda: progress(story), 90)
        told = story.condition("chat", "ModelReady")
        assert seen["totalBytes"] > 90_000_000
        assert (told["status"], told["reason"]) == ("False", "Loading")
        assert " MB (" in told["message"], told
        assert " MB (" in platform.overspill(
            story.kube, "check", "-n", story.namespace, check=False
        )

        data_path.tell(story, story.namespace, "bucket", "on", file="go")
        story.wait_ready("chat", 1)
        assert_no_failure([send_one(story.client("chat"))])
        eventually("no load is told", lambda: "model" not in story.status("chat"), timeout=60)
        assert loads(story) == ["GET from None"]

        scaling = {"minReplicas": 2, "maxReplicas": 2}
        story.kube.patch("infsvc", "chat", story.namespace, {"spec": {"scaling": scaling}})
        story.wait_ready("chat", 2)
        assert loads(story) == ["GET from None"]
        print(f"seen while it was loaded: {told['message']}")
