"""A model that cannot be found is named in a condition, and heals when mended."""

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.load import send_one


def test_model_that_cannot_be_found(story: Story) -> None:
    story.apply("chat", model={"uri": "oci://localhost/overspill/models/no-such-model:1"})

    story.wait_condition("chat", "ModelReady", "False", timeout=90)
    message = story.condition("chat", "ModelReady")["message"]
    assert "no-such-model" in message
    ready = story.condition("chat", "Ready")
    assert ready["status"] == "False"
    assert send_one(story.client("chat")).status == 503

    story.apply("chat", model={"uri": f"oci://{platform.MODEL}", "contextLength": 1024})
    story.wait_condition("chat", "ModelReady", "True", timeout=120)
    story.wait_ready("chat", 1, timeout=120)
    assert_no_failure([send_one(story.client("chat"))])
