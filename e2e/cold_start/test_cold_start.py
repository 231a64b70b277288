"""From zero with a slow boot: one service holds its first request, another has it bridged."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from e2e import data_path
from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually
from lab.load import Sent, send_one

BOOT = 12.0  # seconds: longer than the 10 s after which a stream that is held gets heartbeats
ZERO = {"minReplicas": 0, "maxReplicas": 1}
SPILLOVER = platform.spillover(["ColdStart"])


def test_cold_start_held_and_bridged(story: Story) -> None:
    pace: dict[str, Any] = {"replicas": 0, "rate": 20, "boot": BOOT}
    data_path.paced(story, "held", scaling=ZERO, **pace)
    data_path.paced(story, "bridged", scaling=ZERO, spillover=SPILLOVER, **pace)
    story.wait_condition("held", "Ready", "True")
    story.wait_condition("bridged", "SpilloverReady", "True")

    later: list[Sent] = []

    def local() -> bool:
        later.append(send_one(story.client("bridged")))
        return later[-1].destination == "local"

    with ThreadPoolExecutor() as threads:
        holding = threads.submit(send_one, story.client("held"))
        began = time.monotonic()
        bridged = send_one(story.client("bridged"))
        eventually("the replica answers", local, timeout=120)
        booted = time.monotonic() - began
        held = holding.result()

    assert_no_failure([held, bridged, *later])
    assert held.destination == "local"
    assert (bridged.destination, bridged.reason) == (platform.CLOUD, "ColdStart")
    assert {s.destination for s in later[:-1]} <= {platform.CLOUD}
    assert held.ttft_ms is not None
    assert bridged.ttft_ms is not None
    data_path.record(
        f"cold start, an engine that boots for {BOOT:g} s: first token after "
        f"{held.ttft_ms / 1000:.1f} s held, {bridged.ttft_ms / 1000:.1f} s bridged by a provider, "
        f"whose place a replica took after {booted:.1f} s"
    )
    assert held.ttft_ms / 1000 >= BOOT
    assert bridged.ttft_ms / 1000 < BOOT / 2
