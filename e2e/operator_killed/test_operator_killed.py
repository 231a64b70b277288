"""The operator dies under load: traffic goes on, and scaling resumes with the next one."""

from e2e import data_path
from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually, is_ready

OPERATOR = "app.kubernetes.io/component=operator"


def test_operator_killed_under_load(story: Story) -> None:
    # One replica as long as the operator is away, however slow the machine.
    story.apply("chat", scaling={"minReplicas": 1, "maxReplicas": 1})
    story.wait_ready("chat", 1)
    kube = story.kube

    with story.load("chat", max_tokens=8).running(2) as load:
        eventually("load is flowing", lambda: len(load.sent) >= 5, timeout=60)
        # A kill, so that it cannot give its lease back; then no other in its place.
        operators = kube.list("pods", platform.NAMESPACE, OPERATOR)
        data_path.kill(next(p for p in operators if is_ready(p)), "operator")
        kube.kubectl(
            "scale", "deployment/overspill-operator", "--replicas=0", "-n", platform.NAMESPACE
        )
        try:
            kube.kubectl(
                "delete",
                "pod",
                "-l",
                OPERATOR,
                "-n",
                platform.NAMESPACE,
                "--force",
                "--grace-period=0",
            )
            eventually(
                "no operator", lambda: not kube.list("pods", platform.NAMESPACE, OPERATOR), 60
            )
            seen = len(load.sent)
            eventually("20 answers without it", lambda: len(load.sent) >= seen + 20, timeout=180)
            assert story.ready("chat") == 1
        finally:
            kube.kubectl(
                "scale", "deployment/overspill-operator", "--replicas=1", "-n", platform.NAMESPACE
            )
        kube.kubectl(
            "rollout", "status", "deployment/overspill-operator", "-n", platform.NAMESPACE,
            "--timeout=200s", timeout=210,
        )  # fmt: skip
    assert_no_failure(load.sent, at_least=25)

    story.kube.patch(
        "infsvc",
        "chat",
        story.namespace,
        {"spec": {"scaling": {"minReplicas": 2, "maxReplicas": 2}}},
    )
    story.wait_ready("chat", 2)
