"""Both gateways are replaced under load, half of it long streams: nothing fails, nothing is cut."""

from e2e import data_path
from e2e.data_path import LOOPS, RATE, STREAM_SECONDS
from e2e.story import Story
from lab import platform
from lab.kube import eventually


def test_gateway_roll_under_load(story: Story) -> None:
    data_path.paced(story, "chat")
    kube = story.kube
    with data_path.gateways(kube, 2):
        old = {p["metadata"]["uid"] for p in data_path.gateway_pods(kube)}
        with (
            data_path.streams(story, "chat").running(LOOPS // 2) as long,
            data_path.streams(story, "chat", 0.6).running(LOOPS // 2) as short,
        ):
            eventually("load is flowing", lambda: len(short.sent) >= LOOPS, timeout=60)
            where = ("-n", platform.NAMESPACE)
            kube.kubectl("rollout", "restart", data_path.GATEWAY, *where)
            kube.kubectl(
                "rollout", "status", data_path.GATEWAY, *where, "--timeout=200s", timeout=210
            )
            eventually(
                "the old gateways have ended",
                lambda: not old & {p["metadata"]["uid"] for p in data_path.gateway_pods(kube)},
                timeout=STREAM_SECONDS + 60,
            )
    data_path.assert_whole(long.sent, round(STREAM_SECONDS * RATE), at_least=LOOPS)
    data_path.assert_whole(short.sent, 3, at_least=10 * LOOPS)
    data_path.record(
        f"gateway roll: {LOOPS} loops on paced engines, {len(long.sent)} streams of "
        f"{STREAM_SECONDS} s and {len(short.sent)} of 0.6 s, 0 failed, 0 truncated"
    )
