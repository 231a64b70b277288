"""What the stories of the data path share: paced engines, several gateways, faults on command.

The machine is too small for as many real engines as these stories need, so the paced engine
stands in: an InferenceRuntime whose image computes nothing and makes tokens at a given pace.
``OVERSPILL_CHAOS`` (`make chaos`) asks for the full lengths.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.fixtures import start_server
from e2e.story import Story, restricted_pod
from lab import platform
from lab.kube import ROOT, Kube, eventually, is_ready
from lab.load import Load, Sent, failures, send_one

LONG = bool(os.environ.get("OVERSPILL_CHAOS"))
LOOPS, STREAM_SECONDS = (100, 60) if LONG else (30, 20)
GATEWAY = "deployment/overspill-gateway"
GATEWAY_PODS = "app.kubernetes.io/component=gateway"
CONTAINERD = "/run/overspill-cluster/containerd.sock"
RATE = 5.0  # tokens per second


def paced(story: Story, name: str, *, replicas: int = 2, **options: Any) -> None:
    """Apply a service on paced engines and wait for its replicas.

    :param options: ``rate``, ``prefill``, ``boot``, ``slots``, and fields of its spec.
    """
    pace = [options.pop("rate", RATE), options.pop("prefill", 0.05), options.pop("boot", 0.0)]
    story.kube.apply(platform.paced_runtime(*pace), namespace=story.namespace)
    spec = {
        "model": {"uri": f"oci://{platform.MODEL}"},
        "engine": {
            "runtime": platform.PACED,
            "batching": {"maxSequences": options.pop("slots", LOOPS)},
        },
        "resources": {"cpu": "200m", "memory": "128Mi"},
        "scaling": {"minReplicas": replicas, "maxReplicas": replicas},
        "rollout": {"drain": f"{STREAM_SECONDS + 20}s"},
    }
    story.apply(name, **spec | options)
    story.wait_ready(name, replicas)


@contextmanager
def gateways(kube: Kube, count: int) -> Iterator[None]:
    """Run so many gateways behind the one Service, and one again afterwards."""
    scale(kube, count)
    try:
        yield
    finally:
        scale(kube, 1)


def scale(kube: Kube, count: int) -> None:
    """Set the number of gateways and wait until they are ready and no other is left."""
    kube.kubectl("scale", GATEWAY, f"--replicas={count}", "-n", platform.NAMESPACE)

    def settled() -> bool:
        pods = gateway_pods(kube)
        return len(pods) == count and all(is_ready(p) for p in pods)

    eventually(f"{count} gateways, all ready", settled, timeout=200)


def gateway_pods(kube: Kube) -> list[dict[str, Any]]:
    """The gateways' pods, those that leave too."""
    return kube.list("pods", platform.NAMESPACE, GATEWAY_PODS)


def reach_each_gateway(story: Story, name: str) -> None:
    """Wait until new connections to the gateways' Service come to each of them.

    A gateway is ready some time before the node's rules lead to it, and what connected before
    that stays with the others: a load would then miss it for good.
    """
    client = story.client(name, max_tokens=1)

    def reached() -> bool:
        assert not send_one(client).failed
        return all(_answered(pod) for pod in gateway_pods(story.kube))

    eventually("the Service leads to each gateway", reached, timeout=60)


def _answered(pod: dict[str, Any]) -> bool:
    """Whether a gateway has answered a request since it started."""
    series = metrics(pod, 9090)
    return any(n for name, n in series.items() if name.startswith("overspill_requests_total{"))


def metrics(pod: dict[str, Any], port: int) -> dict[str, float]:
    """The series that a pod exports now."""
    url = f"http://{pod['status']['podIP']}:{port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = [line.decode().rpartition(" ") for line in answer if not line.startswith(b"#")]
    return {name: float(value) for name, _, value in lines}


def streams(story: Story, name: str, seconds: float = STREAM_SECONDS, rate: float = RATE) -> Load:
    """Loops of streams that take so long."""
    return story.load(name, max_tokens=max(1, round(seconds * rate)))


def kill(pod: dict[str, Any], container: str) -> float:
    """SIGKILL the program of a container; return when that was done, in seconds since the epoch."""
    (status,) = [s for s in pod["status"]["containerStatuses"] if s["name"] == container]
    identity = status["containerID"].removeprefix("containerd://")
    ctr = (f"{platform.LOCAL_BIN}/ctr", "--address", CONTAINERD, "--namespace", "k8s.io")
    subprocess.run(
        [*ctr, "tasks", "kill", "--signal", "SIGKILL", identity],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return time.time()


def faulty_server(story: Story, namespace: str, name: str, **labels: str) -> None:
    """Start the server that fails on command, with a Service of its name in front."""
    program = (ROOT / "hack" / "lab" / "faulty_server.py").read_text()
    pod = restricted_pod(name, ["python3", "-c", program])
    pod["metadata"]["labels"] = labels
    pod["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8000}]
    start_server(story.kube, namespace, pod, 8000)


def paced_server(story: Story, name: str, rate: float) -> None:
    """Run the paced engine as somebody else's server in the cloud's namespace."""
    command = ["python3", "/opt/paced_engine.py", "--sequences", "64", "--rate", str(rate)]
    pod = restricted_pod(name, command)
    pod["spec"]["containers"][0]["image"] = platform.images()["paced-engine"]
    pod["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8000}]
    start_server(story.kube, platform.CLOUD, pod, 8000)


@contextmanager
def provider(story: Story, name: str, **spec: Any) -> Iterator[None]:
    """Make a provider of the server of this name in the cloud's namespace; both go afterwards.

    It uses the stand-in cloud's key, whose Secret then names this host as well.
    """
    host = f"{name}.{platform.CLOUD}.svc.cluster.local:8000"
    made = platform.stand_in(["*"])
    made["metadata"]["name"] = name
    made["spec"] |= {"baseURL": f"http://{host}/v1"} | spec
    try:
        _let_key_go_to(story.kube, f"{platform.CLOUD_HOST},{host}")
        story.kube.apply(made)
        yield
    finally:
        _let_key_go_to(story.kube, platform.CLOUD_HOST)
        story.kube.delete("infprov", name, platform.CLOUD)
        story.kube.delete("service", name, platform.CLOUD)
        story.kube.delete("pod", name, platform.CLOUD, "--grace-period=1")


def _let_key_go_to(kube: Kube, hosts: str) -> None:
    annotate = ("annotate", "secret", platform.SECRET, "-n", platform.CLOUD, "--overwrite")
    kube.kubectl(*annotate, f"{platform.HOSTS}={hosts}")


def tell(story: Story, namespace: str, name: str, mode: str, file: str = "mode") -> None:
    """Tell the faulty server what to do from now on."""
    program = f"import pathlib; pathlib.Path('/tmp/{file}').write_text({mode!r})"
    story.kube.kubectl("exec", name, "-n", namespace, "--", "python3", "-c", program)


def assert_whole(sent: list[Sent], tokens: int, at_least: int) -> None:
    """Every stream came to its end with every token, and there were enough to mean something."""
    assert len(sent) >= at_least, f"only {len(sent)} requests were sent"
    assert not failures(sent), failures(sent)[:5]
    assert not cut(sent, tokens), cut(sent, tokens)[:5]


def cut(sent: list[Sent], tokens: int) -> list[Sent]:
    """Streams that look complete and are not: silently truncated."""
    return [s for s in sent if s.complete and s.pieces != tokens]


def record(line: str) -> None:
    """Print a figure and keep it for the pages that quote it."""
    print(line)
    path = Path(ROOT) / "build" / "reports" / "data-path.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M')} {line}\n")
