"""A provider refuses the key, the load, everything, or hangs: replicas answer, the reason shows."""

from e2e import data_path
from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually

NAME = "faulty"
HOST = f"{NAME}.{platform.CLOUD}.svc.cluster.local:8000"
# In this order, since its rests double with every failure but a 429, up to 60 s.
REASONS = {"401": "KeyRefused", "500": "ServerError", "hang": "TimedOut", "429": "RateLimited"}


def allow(story: Story, hosts: str) -> None:
    """Say where the stand-in cloud's key may go."""
    annotate = ("annotate", "secret", platform.SECRET, "-n", platform.CLOUD, "--overwrite")
    story.kube.kubectl(*annotate, f"{platform.HOSTS}={hosts}")


def provider(story: Story) -> None:
    """A provider of its own, with the key of the stand-in cloud."""
    allow(story, f"{platform.CLOUD_HOST},{HOST}")
    made = platform.stand_in(["*"])
    made["metadata"]["name"] = NAME
    made["spec"] |= {
        "baseURL": f"http://{HOST}/v1",
        "timeouts": {"connect": "1s", "firstByte": "2s"},
    }
    story.kube.apply(made)


def test_provider_faults(story: Story) -> None:
    data_path.faulty_server(story, platform.CLOUD, NAME)
    try:
        provider(story)
        spillover = platform.spillover(["MaxReplicas", "ObjectiveAtRisk"])
        spillover["providers"][0]["name"] = NAME
        scaling = {"minReplicas": 1, "maxReplicas": 1, "objective": {"queueWait": {"p95": "100ms"}}}
        data_path.paced(
            story, "chat", replicas=1, slots=2, rate=20, scaling=scaling, spillover=spillover
        )
        for mode, reason in REASONS.items():
            data_path.tell(story, platform.CLOUD, NAME, mode)
            with story.load("chat", max_tokens=10).running(6) as load:
                eventually(
                    f"SpilloverReady says {reason}",
                    lambda reason=reason: (  # type: ignore[misc]
                        story.condition("chat", "SpilloverReady").get("reason") == reason
                    ),
                    timeout=120,  # it may have to end a rest of 60 s first
                )
            assert_no_failure(load.sent, at_least=6)
            assert {s.destination for s in load.sent} == {"local"}
            slowest = max(s.seconds for s in load.sent)
            data_path.record(
                f"provider {mode}: {len(load.sent)} requests, 0 failed, all answered locally, "
                f"slowest {slowest:.1f} s; SpilloverReady=False {reason}"
            )
    finally:
        allow(story, platform.CLOUD_HOST)
        story.kube.delete("infprov", NAME, platform.CLOUD)
        story.kube.delete("service", NAME, platform.CLOUD)
        story.kube.delete("pod", NAME, platform.CLOUD, "--grace-period=1")
