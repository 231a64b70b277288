"""A service at zero holds the first request, starts a replica and answers from it."""

from e2e.story import Story, assert_no_failure
from lab.load import send_one


def test_first_answer_from_zero(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 0, "maxReplicas": 1})
    # Zero by design is Ready: Helm and Argo CD must not hang on it.
    story.wait_condition("chat", "Ready", "True", timeout=30)
    assert story.pods("chat") == []

    sent = send_one(story.client("chat"))

    assert_no_failure([sent])
    assert sent.destination == "local"
    assert sent.tokens > 0
    story.wait_ready("chat", 1)
    assert (0, 1) in story.steps("chat")
