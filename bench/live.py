"""The same ten minutes of load with us, a plain HPA and KEDA, side by side on a real cluster.

    make bench-live                          15 minutes
    make bench-live BENCH="--seconds 60"     a short trial

The three serve at the same time, each in a namespace of its own: the same requests at the same
moments, from an hour of ServeGen's m-large played six times as fast (bench/live_load.py), the same
Overspill gateway in front, the same replicas, provider, prices and limits. They differ in who sets
the number of replicas only: our autoscaler (`scaling.mode: Objective`, the chart's defaults), an
HPA, or KEDA's own operator and adapter, both through the /scale of a service in mode Manual.

A replica is a stand-in, the paced engine: it computes nothing, has 8 requests in its batch, 4 s an
answer, boots for 20 s, and costs $2.50 an hour from its order to its end. A GPU is a number in the
node's status. The provider is a paced engine, too, at three times the price of a busy replica. The
HPA and KEDA are at their defaults and keep what a replica has at hand (computed and waiting, the
engine's own counts) at 70 % of its batch. All begin with what the lead, a minute that does not
count, keeps busy.

A request keeps the objective when its answer came whole, its first token within 2 s and the others
within 1 s on average. Writes build/bench/live.json and live.png.
"""

import argparse
import json
import platform as machine
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import live_load
import live_report
import live_systems
import live_watch
from e2e import data_path
from e2e.story import Story
from lab import keda, platform
from lab.kube import ROOT, Kube
from lab.load import Sent, send_at
from overspill.api import metrics

RESULT = ROOT / "build" / "bench" / "live.json"
SYSTEMS = ("overspill", "hpa", "keda")
SLOTS, TOKENS, RATE, PREFILL, BOOT = 8, 19, 5.0, 0.2, 20.0  # of a replica; tokens/s; seconds
CAPACITY = SLOTS / (PREFILL + TOKENS / RATE)  # requests/s of a replica: 2
MOST, USED = 6, 0.7  # replicas; share of its batch that HPA and KEDA keep a replica at
TTFT, ITL, QUEUE_WAIT = 2.0, 1.0, 1.0  # seconds
GPU, GPU_HOUR = "example.com/gpu", 2.5  # a resource that only this has; US dollars
CLOUD, CLOUD_RATE = "live-cloud", 20.0  # tokens/s
# 20 tokens read and 19 made are $0.00105; a busy replica makes that for $0.00035.
PRICE = {"inputPerMTok": "5", "outputPerMTok": "50"}
REASONS = ["ClusterFull", "ObjectiveAtRisk", "ColdStart", "ReplicasUnavailable", "MaxReplicas"]
# A replica and what drains it ask for 80 thousandths of a core: 18 of them fit on two.
RESOURCES = {
    "accelerator": {"resource": GPU, "count": 1}, "cpu": "30m", "memory": "128Mi",
}  # fmt: skip


@contextmanager
def gpus(kube: Kube, count: int) -> Iterator[None]:
    """Announce so many of our GPUs on the cluster's one node, until the end of the block."""
    node = kube.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")

    def announce(value: str | None) -> None:
        status = {"status": {"capacity": {GPU: value}, "allocatable": {GPU: value}}}
        target = ("patch", "node", node, "--subresource=status", "--type=merge")
        kube.kubectl(*target, "-p", json.dumps(status))

    announce(str(count))
    try:
        yield
    finally:
        announce(None)


@contextmanager
def stories(kube: Kube) -> Iterator[dict[str, Story]]:
    """A namespace and a key for each system."""
    with ExitStack() as stack:
        found = {}
        for name in SYSTEMS:
            found[name] = Story.begin(kube, f"bench-{name}")
            stack.callback(found[name].end)
        try:
            yield found
        except Exception:
            print(*(story.describe() for story in found.values()), sep="\n")
            raise


def serve(story: Story, replicas: int) -> None:
    """Start the service, in mode Manual until the load begins."""
    spillover = platform.spillover(REASONS)
    spillover["providers"][0]["name"] = CLOUD
    seconds = {"ttft": TTFT, "itl": ITL, "queueWait": QUEUE_WAIT}
    scaling = {
        "mode": "Manual", "replicas": replicas, "minReplicas": 1, "maxReplicas": MOST,
        "objective": {name: {"p95": f"{value:g}s"} for name, value in seconds.items()},
    }  # fmt: skip
    data_path.paced(
        story, live_systems.NAME, replicas=replicas, rate=RATE, prefill=PREFILL, boot=BOOT,
        slots=SLOTS, scaling=scaling, spillover=spillover, resources=RESOURCES,
        cost={"gpuHour": f"{GPU_HOUR:g}"},
    )  # fmt: skip
    story.wait_condition(live_systems.NAME, "SpilloverReady", "True")


def charged(kube: Kube, namespace: str) -> float:
    """Return the US dollars that the gateway has counted for a namespace's service."""
    own = f'{metrics.SERVICE_LABELS[0]}="{namespace}"'
    return sum(
        value
        for pod in data_path.gateway_pods(kube)
        for name, value in data_path.metrics(pod, 9090).items()
        if name.startswith(f"{metrics.COST}{{") and own in name
    )


def send(stories: dict[str, Story], moments: list[float]) -> dict[str, list[Sent]]:
    """Send each system the same requests at the same moments; return how they ended."""
    clients = {n: s.client(live_systems.NAME, max_tokens=TOKENS) for n, s in stories.items()}
    with ThreadPoolExecutor(len(clients)) as threads:
        sending = {n: threads.submit(send_at, client, moments) for n, client in clients.items()}
        return {n: future.result() for n, future in sending.items()}


def play(kube: Kube, found: dict[str, Story], moments: list[float], end: float) -> list[Any]:
    """Serve the load and return the rows.

    :param end: of what counts, in seconds from the begin of the lead.
    """
    address = kube.kubectl(
        "get", "service", "overspill-prometheus", "-n", platform.NAMESPACE,
        "-o", "jsonpath={.spec.clusterIP}",
    )  # fmt: skip
    prometheus = f"http://{address}:9090"
    folder = RESULT.parent / "live-keda"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = f"overspill.dev/service={live_systems.NAME}"
    watch = live_watch.Watch(kube, {s.namespace: n for n, s in found.items()}, labels)
    with ExitStack() as stack:
        stack.enter_context(keda.running(kube, folder))
        stack.enter_context(live_systems.adapter(kube, found["hpa"].namespace, prometheus))
        before = {n: charged(kube, s.namespace) for n, s in found.items()}
        stack.enter_context(live_systems.scaling(found, prometheus, USED * SLOTS, MOST))
        stack.enter_context(watch)
        begun = time.time()
        sent = send(found, moments)
        spent = {n: charged(kube, s.namespace) - before[n] for n, s in found.items()}
    rows = []
    for name, all_sent in sent.items():
        counted = [s for m, s in zip(moments, all_sent, strict=True) if m >= live_load.LEAD]
        kept = sum(live_report.attains(s, TTFT, ITL) for s in counted)
        seconds = live_watch.seconds(watch.lives[name], begun + live_load.LEAD, begun + end)
        # All requests are equally long, so each that spilled cost the same.
        spilled = sum(s.destination == CLOUD for s in all_sent)
        request = spent[name] / max(1, spilled)
        rows.append(live_report.row(name, counted, kept, seconds, GPU_HOUR, request))
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")

    def load(second: float) -> float:
        return live_load.needed(moments, second, CAPACITY)

    live_report.chart(rows, watch.looks, begun, load, end, RESULT.with_suffix(".png"))
    return rows


def main() -> None:
    """Serve the load three ways at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help=f"folder of {live_load.TRACE}")
    parser.add_argument("--seconds", type=float, default=live_load.SECONDS, help="that count")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    path = options.traces / live_load.TRACE
    if not path.exists():
        sys.exit(f"{path} is not there: give its folder with --traces")
    moments, kube = live_load.moments(path, options.seconds, options.seed), platform.local_kube()
    replicas, began = live_load.initial(moments, CAPACITY), time.monotonic()
    print(f"{len(moments)} requests for each; all begin with {replicas} replicas", flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    platform.install(kube, platform.values(autoscaler={}))  # the chart's own windows
    platform.start_cloud(kube, ["*"])
    with ExitStack() as stack:
        stack.enter_context(gpus(kube, MOST * len(SYSTEMS)))
        found = stack.enter_context(stories(kube))
        data_path.paced_server(found["overspill"], CLOUD, CLOUD_RATE)
        models = [{"name": platform.CLOUD_MODEL, "price": PRICE}]
        stack.enter_context(data_path.provider(found["overspill"], CLOUD, models=models))
        for story in found.values():
            serve(story, replicas)
        rows = play(kube, found, moments, live_load.LEAD + options.seconds)
    print(live_report.table(rows))
    print(f"{time.monotonic() - began:.0f} s, seed {options.seed}, {machine.machine()}")


if __name__ == "__main__":
    main()
