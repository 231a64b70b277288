"""Something else answers in Prometheus' place: nothing, nonsense, everything twice, or too late."""

import time

from e2e import data_path
from e2e.data_path import LONG
from e2e.fixtures import no_prometheus
from e2e.story import Story
from lab import platform
from lab.kube import eventually

NAME = "liar"
LABELS = {
    "app.kubernetes.io/name": "overspill",
    "app.kubernetes.io/instance": platform.RELEASE,
    "app.kubernetes.io/component": "prometheus",
}
# What it says, what ScalingActive says ("" where nobody can see the lie), and for how many seconds
# it is told after that. A zero that was believed would show after the down window of 20 s.
# Silence comes last: the queries that still wait for an answer would delay how the next lie shows.
LIES = (
    ("empty", "NoMetrics", 3),
    ("NaN", "NoMetrics", 3),
    ("0", "", 24),
    ("double 9", "", 3),
    ("hang", "PrometheusUnavailable", 3),
)
HOLD = 60 if LONG else 0  # seconds at least
PERIOD = 2.0 + 5.0 + 2.0  # seconds: a round, what a query may take, and our own look


def test_prometheus_lies(story: Story) -> None:
    data_path.paced(
        story, "chat", replicas=0, slots=4, rate=10,
        scaling={"minReplicas": 0, "maxReplicas": 3},
    )  # fmt: skip
    with story.load("chat", max_tokens=10).running(6) as load:
        story.wait_ready("chat", 2, timeout=90)
        eventually("its metrics are known", lambda: scaling(story) == "Active", timeout=60)
        with no_prometheus(story.kube):
            try:
                data_path.faulty_server(story, platform.NAMESPACE, NAME, **LABELS)
                service = f"{story.namespace}/chat"
                data_path.tell(story, platform.NAMESPACE, NAME, service, "service")
                for lie, reason, seconds in LIES:
                    believe_nothing(story, lie, reason, max(seconds, HOLD))
            finally:
                story.kube.delete("service", NAME, platform.NAMESPACE)
                story.kube.delete("pod", NAME, platform.NAMESPACE, "--grace-period=1")
        eventually("the truth is believed", lambda: scaling(story) == "Active", timeout=90)
    data_path.assert_whole(load.sent, 10, at_least=100)


def scaling(story: Story) -> str:
    """Why scaling works or does not, as the service shows it."""
    return str(story.condition("chat", "ScalingActive").get("reason"))


def believe_nothing(story: Story, lie: str, reason: str, seconds: float) -> None:
    """One lie: it shows, and the count neither falls below the load nor passes the maximum."""
    data_path.tell(story, platform.NAMESPACE, NAME, lie)
    told = time.monotonic()
    if reason:
        eventually(f"{lie!r} is {reason}", lambda: scaling(story) == reason, timeout=60)
    shown = time.monotonic() - told
    counts = story.counts("chat", seconds)
    data_path.record(
        f"Prometheus says {lie!r} for {shown + seconds:.0f} s: "
        f"{f'shown as {reason} after {shown:.1f} s, ' if reason else ''}replicas {sorted(counts)}"
    )
    assert counts <= {2, 3}
    assert shown <= 2 * PERIOD
