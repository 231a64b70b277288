"""Nothing happens for a minute: we write nothing but leases and token reviews."""

import time
from collections import Counter

from e2e.story import Story
from lab import audit, platform
from lab.kube import eventually

OURS = f"system:serviceaccount:{platform.NAMESPACE}:"
ALLOWED = {"leases", "tokenreviews"}
QUIET, MINUTE = 20.0, 60.0  # seconds


def writes(since: float) -> Counter[str]:
    """Writes of our service accounts by verb and resource, from the API server's audit log.

    :param since: seconds since the epoch.
    """
    events = audit.writes(OURS, since)
    return Counter(f"{event['verb']} {event['objectRef']['resource']}" for event in events)


def unwanted(found: Counter[str]) -> dict[str, int]:
    """Those that an idle cluster must not see."""
    return {what: n for what, n in found.items() if what.split()[1] not in ALLOWED}


def test_idle_minute(story: Story) -> None:
    story.apply("chat")
    story.apply("zero", scaling={"minReplicas": 0, "maxReplicas": 1})
    story.wait_ready("chat", 1)
    story.wait_condition("zero", "Ready", "True")
    assert unwanted(writes(time.time() - 60)), "the audit log shows none of our writes"
    eventually("the start is over", lambda: not unwanted(writes(time.time() - QUIET)), 120, 2)

    start = time.time()
    time.sleep(MINUTE)  # this story is about time passing
    found = writes(start)

    assert unwanted(found) == {}
    assert found["patch leases"] + found["update leases"] > 0, "nobody was alive"
    print(f"idle minute: {dict(found)}")
