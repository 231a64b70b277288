"""Row 23: a connection that goes silent, without a FIN, is noticed within 75 s everywhere."""

import time
from pathlib import Path

from faulty_world import ZERO, FaultyWorld, all_rights, figure, followed
from proxy import Proxy

from lab.kube import eventually

NOTICED_SECONDS = 75
OPERATOR_KINDS = 10  # three of ours, six of children, the gateway's EndpointSlices


def watched_again(proxy: Proxy, since: float) -> bool:
    """Whether each collection that was watched before is asked for once more."""
    before = {c.path for c in proxy.calls if c.is_watch and c.at < since}
    return before <= {c.path for c in proxy.calls if c.is_watch and c.at >= since}


def test_dead_connections_are_noticed_by_operator_gateway_and_lease(
    faulty: FaultyWorld, tmp_path: Path
) -> None:
    operator, proxy = faulty.start()
    faulty.edit("chat", 1)
    faulty.world.settled("chat")
    namespace = faulty.world.namespace
    with (
        Proxy(all_rights(faulty.world, tmp_path)) as other,
        followed(other.kubeconfig(tmp_path / "gateway"), namespace) as gateway,
    ):
        begun = time.monotonic()
        proxy.black_hole()
        other.black_hole()
        faulty.edit("chat", 2)
        faulty.world.apply("new", scaling=ZERO)
        applied = faulty.reaches("chat", 2, NOTICED_SECONDS)
        left = NOTICED_SECONDS - (time.monotonic() - begun)
        eventually("kopf watches anew", lambda: watched_again(proxy, begun), left, 0.2)
        eventually("the gateway watches anew", lambda: watched_again(other, begun), left, 0.2)
        eventually(
            "the gateway knows the new one", lambda: f"{namespace}/new" in gateway.services, 5, 0.1
        )
        noticed = time.monotonic() - begun
    assert len({c.path for c in proxy.since(begun) if c.is_watch}) == OPERATOR_KINDS
    eventually("it leads, still or again", lambda: operator.leads, 30, 0.2)
    lost = "not leader" in operator.log.read_text()
    figure(
        "23", "all TCP connections silent, no FIN",
        f"an edit applied after {applied:.0f} s, all watches opened anew after {noticed:.0f} s, "
        f"the lease {'lost and taken again' if lost else 'kept'}",
    )  # fmt: skip
