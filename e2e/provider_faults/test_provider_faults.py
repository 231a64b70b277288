"""A provider refuses the key, the load, everything, or hangs: replicas answer, the reason shows."""

from e2e import data_path
from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually

NAME = "faulty"
MODELS = [{"name": platform.CLOUD_MODEL, "price": platform.PRICE}]
# In this order, since its rests double with every failure but a 429, up to 60 s.
REASONS = {"401": "KeyRefused", "500": "ServerError", "hang": "TimedOut", "429": "RateLimited"}


def test_provider_faults(story: Story) -> None:
    data_path.faulty_server(story, platform.CLOUD, NAME)
    timeouts = {"connect": "1s", "firstByte": "2s"}
    with data_path.provider(story, NAME, models=MODELS, timeouts=timeouts):
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
