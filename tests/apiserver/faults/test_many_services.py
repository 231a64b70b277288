"""Row 26: many services at once, half of them deleted unseen, and a namespace that just goes."""

import json
import time

from faulty_world import ZERO, FaultyWorld, figure, length
from operator_world import CHILDREN, NOWHERE, Operator
from proxy import Answer, Call, Faults, Proxy

from overspill.api.names import API_VERSION

COUNT = length(60, 1_000)
IDLE_SECONDS = length(40, 600)  # after a restart; longer than numbers wait
UP_SECONDS = 60 + COUNT / 5
# The garbage collector makes twenty calls a second, and half of the services have six objects each.
COLLECTED_SECONDS = length(60, 300)
GONE_SECONDS = 60
QUIET_SECONDS = 35  # without a write: what is written at most every 30 s has been written
WITH_PODS = 20  # one in so many has a replica, which no node takes


class Unreachable(Faults):
    """Nobody answers any more."""

    def answers(self, call: Call) -> Answer:
        return Answer(0)


def create(faulty: FaultyWorld, names: list[str]) -> None:
    items = [
        {
            "apiVersion": API_VERSION,
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": faulty.world.namespace},
            "spec": {
                "model": {"uri": "oci://registry.example/models/none:1"},
                **NOWHERE,
                "scaling": {**ZERO, "minReplicas": int(index % WITH_PODS == 0)},
                "pod": {"annotations": {"edit": "1"}},
            },
        }
        for index, name in enumerate(names)
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    faulty.world.kube.kubectl("create", "-f", "-", stdin=text, timeout=600)


def owners(faulty: FaultyWorld) -> set[str]:
    """The services of which anything is left."""
    return {
        obj["metadata"]["labels"]["overspill.dev/service"]
        for kind in (*CHILDREN.values(), "replicasets", "pods")
        for obj in faulty.world.kube.list(kind, faulty.world.namespace, "overspill.dev/service")
    }


def awaited(faulty: FaultyWorld, what: str, probe: object, within: float) -> float:
    """Wait for something; return the seconds that it took."""
    started = time.monotonic()
    faulty.world.eventually(what, probe, within)  # type: ignore[arg-type]
    return time.monotonic() - started


def writes(proxy: Proxy, since: float) -> list[str]:
    return [f"{call.method} {call.path}" for call in proxy.since(since) if call.is_write]


def looked_at(operator: Operator, count: int) -> bool:
    return operator.leads and operator.reconciles >= count


def test_many_services_half_deleted_unseen_and_their_namespace_gone(faulty: FaultyWorld) -> None:
    operator, proxy = faulty.start()
    faulty.lead(operator)
    names = [f"s{index}" for index in range(COUNT)]
    create(faulty, names)
    up = awaited(faulty, "all are up", lambda: faulty.settled(1, names), UP_SECONDS)
    faulty.world.eventually(
        "all is said", lambda: not writes(proxy, time.monotonic() - QUIET_SECONDS), UP_SECONDS
    )
    operator.kill()
    gone, kept = names[::2], names[1::2]
    kubectl = faulty.world.kube.kubectl
    kubectl("delete", "infsvc", *gone, "-n", faulty.world.namespace, "--wait=false", timeout=600)
    cleared = awaited(faulty, "no orphans", lambda: owners(faulty) == set(kept), COLLECTED_SECONDS)
    config = str(faulty.world.folder / "one.kubeconfig")
    restarted = time.monotonic()
    operator = faulty.world.start("one", KUBECONFIG=config)
    faulty.world.eventually("all are looked at", lambda: looked_at(operator, len(kept)), UP_SECONDS)
    time.sleep(IDLE_SECONDS)
    assert writes(proxy, restarted) == []
    assert faulty.settled(1, kept)
    proxy.black_hole()
    proxy.faults = Unreachable()
    faulty.world.kube.delete("namespace", faulty.world.namespace, "", "--wait=false")
    left = awaited(
        faulty,
        "the namespace is gone",
        lambda: faulty.world.kube.get("namespace", faulty.world.namespace, "") is None,
        GONE_SECONDS,
    )
    assert operator.process.poll() is None
    figure(
        "26",
        f"{COUNT} services; {len(gone)} deleted while the operator is down; the namespace deleted "
        "while nobody can be reached",
        f"all up after {up:.0f} s; 0 orphans after {cleared:.0f} s; no write within "
        f"{IDLE_SECONDS} s of the restart; the namespace gone after "
        f"{left:.0f} s",
    )
