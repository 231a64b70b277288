"""A model on a PersistentVolumeClaim: named before the claim is there, served once it is."""

from e2e.fixtures import claim
from e2e.story import Story, assert_no_failure, restricted_pod
from lab import platform
from lab.load import send_one

CLAIM = "weights"
COPY = (
    "import glob, os, shutil; os.makedirs('/claim/small', exist_ok=True); "
    "shutil.copy(glob.glob('/model/*.gguf')[0], '/claim/small/model.gguf')"
)


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
        "-n", story.namespace, "--timeout=110s",
    )  # fmt: skip


def test_model_on_a_claim(story: Story) -> None:
    story.apply("chat", model={"uri": f"pvc://{CLAIM}/small/model.gguf", "contextLength": 1024})
    assert story.wait_condition("chat", "ModelReady", "False") == "ClaimNotFound"
    assert CLAIM in story.condition("chat", "ModelReady")["message"]

    with claim(story, CLAIM, "ReadWriteOnce"):
        copy_model(story)
        story.wait_condition("chat", "ModelReady", "True", timeout=120)
        story.wait_ready("chat", 1)
        assert_no_failure([send_one(story.client("chat"))])
