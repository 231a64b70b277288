"""Prometheus goes away: the count is held and the reason shown; it recovers by itself."""

from e2e.fixtures import no_prometheus
from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually

UNAVAILABLE = "PrometheusUnavailable"


def test_prometheus_killed(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 1, "maxReplicas": 2})
    story.wait_ready("chat", 1)
    with story.load("chat").running(3):
        story.wait_ready("chat", 2, timeout=120)
        story.wait_condition("chat", "ScalingActive", "True", timeout=60)
    with no_prometheus(story.kube):
        with story.load("chat").running(3) as load:
            eventually(
                "ScalingActive says PrometheusUnavailable",  # its last answer may lack a metric
                lambda: story.condition("chat", "ScalingActive")["reason"] == UNAVAILABLE,
                timeout=60,
            )
            assert story.condition("chat", "ScalingActive")["status"] == "False"
            eventually("10 answers", lambda: len(load.sent) >= 10, timeout=90)
        assert_no_failure(load.sent, at_least=10)
        assert story.counts("chat", platform.DOWN_WINDOW + 5) == {2}  # nobody asks for anything
    story.wait_condition("chat", "ScalingActive", "True", timeout=90)
    story.wait_ready("chat", 1, timeout=120)


def test_scale_up_without_prometheus(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 0, "maxReplicas": 2})
    story.wait_condition("chat", "Ready", "True", timeout=30)
    with no_prometheus(story.kube):
        story.wait_condition("chat", "ScalingActive", "False", timeout=60)
        with story.load("chat").running(4) as load:
            story.wait_ready("chat", 2)
        assert_no_failure(load.sent, at_least=4)
    story.wait_condition("chat", "ScalingActive", "True", timeout=90)
