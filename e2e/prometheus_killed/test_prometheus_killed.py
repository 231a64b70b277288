"""Prometheus goes away: the count is held and the reason shown; it recovers by itself."""

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually

DEPLOYMENT = ("deployment/overspill-prometheus", "-n", platform.NAMESPACE)


def test_prometheus_killed(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 1, "maxReplicas": 2})
    story.wait_ready("chat", 1)
    with story.load("chat").running(3) as load:
        story.wait_ready("chat", 2, timeout=120)
        story.wait_condition("chat", "ScalingActive", "True", timeout=60)
        story.kube.kubectl("scale", "--replicas=0", *DEPLOYMENT)
        try:
            reason = story.wait_condition("chat", "ScalingActive", "False", timeout=60)
            assert reason == "PrometheusUnavailable"
            eventually("30 answers meanwhile", lambda: len(load.sent) >= 30, timeout=90)
            assert story.status("chat")["desiredReplicas"] == 2
        finally:
            story.kube.kubectl("scale", "--replicas=1", *DEPLOYMENT)
        story.wait_condition("chat", "ScalingActive", "True", timeout=90)
    assert_no_failure(load.sent, at_least=30)


def test_scale_up_without_prometheus(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 0, "maxReplicas": 2})
    story.wait_condition("chat", "Ready", "True", timeout=30)
    story.kube.kubectl("scale", "--replicas=0", *DEPLOYMENT)
    try:
        story.wait_condition("chat", "ScalingActive", "False", timeout=60)
        with story.load("chat").running(4) as load:
            story.wait_ready("chat", 2, timeout=120)
        assert_no_failure(load.sent, at_least=4)
    finally:
        story.kube.kubectl("scale", "--replicas=1", *DEPLOYMENT)
    story.wait_condition("chat", "ScalingActive", "True", timeout=90)
