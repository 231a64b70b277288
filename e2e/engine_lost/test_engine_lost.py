"""An engine dies under load, before and after its first byte, by a kill and for its memory."""

import json
import time
from datetime import datetime
from typing import Any

from e2e import data_path
from e2e.story import Story
from lab import platform
from lab.kube import eventually, is_ready
from lab.load import Sent, failures, send_one

# Of a stream, so that a kill meets streams after their first byte.
LONG_SECONDS = max(25, data_path.STREAM_SECONDS)
RESTART_GRAIN = 1.0  # seconds: the kubelet's times have no fractions
SIGKILLED = 128 + 9  # exit code


def test_engine_killed_before_and_after_the_first_byte(story: Story) -> None:
    """Most of a short answer's time is before its first byte, of a long one's after it."""
    data_path.paced(story, "chat", slots=16, rate=5, prefill=1)
    with data_path.gateways(story.kube, 2):
        with (
            data_path.streams(story, "chat", LONG_SECONDS).running(4) as long,
            data_path.streams(story, "chat", 0.2).running(8) as short,
        ):
            eventually("load is flowing", lambda: len(short.sent) >= 24, timeout=60)
            victim = next(p for p in story.pods("chat") if is_ready(p))
            began = time.time()
            killed = data_path.kill(victim, "engine")
            eventually("answers go on", lambda: len(short.since(killed + 5)) >= 24, timeout=60)
        late = late_attempts(story, killed)
        started = eventually("it runs again", lambda: restarted(story, victim), timeout=60)
    noticed = max(0.0, started - killed)
    sent = long.sent + short.sent
    under_way = [s for s in sent if s.t < killed and began < s.t + s.seconds]
    broken = [s for s in sent if s.failed]
    data_path.record(
        f"engine killed: one of 2 paced engines, {len(sent)} requests, {len(under_way)} under way "
        f"at both, {len(broken)} broken after their first byte with an error event, all others "
        f"answered; last attempt at the dead one {late:.1f} s after the kill, "
        f"its restart after {noticed:.0f} s"
    )
    assert not data_path.cut(long.sent, round(LONG_SECONDS * data_path.RATE))
    assert not data_path.cut(short.sent, 1)
    assert all(said_so(s) for s in broken), failures(sent)[:5]
    assert all(s.t < killed for s in broken), "only what had begun before"
    assert 0 < len(broken) < len(under_way)
    # The kubelet says that a container has ended in the same sync in which it starts it again.
    assert late <= noticed + RESTART_GRAIN + 1.5


def test_engine_out_of_memory_before_and_after_the_first_byte(story: Story) -> None:
    data_path.paced(story, "chat", slots=8)
    after = send_one(story.client("chat", max_tokens=20), "grow after 3")
    assert said_so(after), after
    assert after.pieces >= 3
    eventually("a container was out of memory", lambda: oom_kills(story), timeout=60)
    with data_path.streams(story, "chat", 1).running(4) as load:
        eventually("others answer", lambda: len(load.sent) >= 20, timeout=60)
    data_path.assert_whole(load.sent, 5, at_least=20)

    story.wait_ready("chat", 2)
    before = send_one(story.client("chat", stream=False), "grow after 0")
    assert (before.status, before.complete) == (503, False), before
    assert "upstream_failed" in before.error
    eventually("answered again", lambda: not send_one(story.client("chat")).failed, timeout=90)
    data_path.record(
        "engine out of memory: after the first byte an error event, before it a 503 after "
        f"2 attempts; {len(load.sent)} other requests answered meanwhile"
    )


def said_so(sent: Sent) -> bool:
    """Whether a broken stream ended with an error event and without [DONE]."""
    return sent.status == 200 and not sent.complete and "upstream_broken" in sent.error


def oom_kills(story: Story) -> bool:
    """Whether an engine was killed; for its memory, which containerd does not always learn."""
    ends = [
        s.get("lastState", {}).get("terminated") or s.get("state", {}).get("terminated") or {}
        for p in story.pods("chat")
        for s in p["status"].get("containerStatuses", [])
    ]
    return any(end.get("exitCode") == SIGKILLED for end in ends)


def restarted(story: Story, victim: dict[str, Any]) -> float:
    """When a pod's engine started again, in seconds since the epoch; 0 before it has."""
    for pod in story.pods("chat"):
        if pod["metadata"]["uid"] == victim["metadata"]["uid"]:
            (status,) = [s for s in pod["status"]["containerStatuses"] if s["name"] == "engine"]
            started = status["state"].get("running", {}).get("startedAt")
            if status["restartCount"] and started:
                return datetime.fromisoformat(started).timestamp()
    return 0.0


def late_attempts(story: Story, killed: float) -> float:
    """Seconds from the kill to the last attempt that failed, by the gateways' logs."""
    times = [0.0]
    for pod in data_path.gateway_pods(story.kube):
        name = pod["metadata"]["name"]
        text = story.kube.kubectl("logs", name, "-n", platform.NAMESPACE, "--since=240s")
        for line in text.splitlines():
            if '"attempt failed"' in line and f'"{story.namespace}/chat"' in line:
                times.append(
                    datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - killed
                )
    return max(times)
