"""`make demo`: the main job on a real cluster, from nothing, with a verdict.

Builds and starts the local cluster (or uses the context that DEMO_CONTEXT names), installs
the chart, serves a small real model on two GPUs that the cluster counts but does not have,
with a second model server as the cloud, or the real OpenAI when OPENAI_API_KEY is set. It then
runs the stages of ``stages.py`` and leaves everything running. Exit status 1 when a stage
did not happen or a request failed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo import guard, plots, report, screen
from demo.stages import STAGES, Run
from demo.watcher import Watcher
from lab import platform
from lab.kube import ROOT, Kube, eventually, forwarded
from lab.load import Client

NAMESPACE, NAME = "demo", "chat"
NAMESPACES = (NAMESPACE, platform.CLOUD, platform.NAMESPACE)
FOLDER = ROOT / "build" / "demo"
PLACES = 2  # replicas that there is room for
PROMPT_TOKENS = 25  # of one of the load's questions, with the template around it
USUALLY_SPILLED = 60  # requests of a run
WHEN = ["ClusterFull"]  # to spill; so replicas follow the objective, and no price is weighed

SPEC: dict[str, Any] = {
    "cost": {"gpuHour": "0.80"},
    "scaling": {
        "minReplicas": 0,
        "maxReplicas": 4,
        "idleAfter": "20s",
        "objective": {"ttft": {"p95": "3s"}, "queueWait": {"p95": "500ms"}},
    },
    "rollout": {"drain": "20s"},
}


def build() -> Kube:
    """Start the cluster and load the images; progress comes from the two programs."""
    screen.step("The cluster and the images")
    if context := os.environ.get("DEMO_CONTEXT"):
        kube = existing(context)
        guard.check(kube, NAMESPACES)
        load_images(context)
        # Marked as the demo's, so that `make demo-down` may remove it.
        kube.apply(platform.namespace(platform.NAMESPACE))
        return kube
    subprocess.run([sys.executable, "hack/cluster/main.py", "up"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "hack/images.py", "build", "--load"], cwd=ROOT, check=True)
    return platform.local_kube()


def existing(context: str) -> Kube:
    """A cluster of the user's; its nodes are not patched."""
    config = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
    return Kube(kubeconfig=config, path=platform.LOCAL_BIN, context=context)


def load_images(context: str) -> None:
    """Build the images; kind gets them from here, for others it is said what they need."""
    subprocess.run([sys.executable, "hack/images.py", "build"], cwd=ROOT, check=True)
    archives = json.loads((ROOT / "build" / "image-archives.json").read_text()).values()
    if context.startswith("kind-") and shutil.which("kind"):
        name = context.removeprefix("kind-")
        for archive in archives:
            screen.note(f"kind load image-archive {archive}")
            subprocess.run(["kind", "load", "image-archive", archive, "--name", name], check=True)
    else:
        screen.note(f"the nodes of {context} must have the images of {', '.join(archives)}")


def prepare(kube: Kube) -> str:
    """Install Overspill, the cloud and one service; return a client's key."""
    screen.step("Overspill by its Helm chart, a cloud, one InferenceService")
    screen.note(
        f"engine pods are limited to {platform.ENGINE_CPU} CPU each and the stand-in cloud to "
        f"{platform.CLOUD_CPU}, so that a second replica is real capacity on a small machine"
    )
    platform.install(kube, chart_values(way_out(kube)))
    screen.note(f"helm install {platform.RELEASE} -n {platform.NAMESPACE}: ready")
    model = cloud(kube)
    screen.note(
        "requests spill when the cluster is full and not before, so replicas follow the latency "
        "objective; cost.gpuHour only shows what they cost (docs/concepts.md: by price)"
    )
    kube.apply(platform.namespace(NAMESPACE))
    spec = SPEC | {"spillover": platform.spillover(WHEN, model)}
    if kube.context:  # somebody else's GPUs are not ours to fill: a quota makes it full
        kube.apply(quota(), namespace=NAMESPACE)
        spec["resources"] = {"cpu": platform.ENGINE_CPU, "memory": "512Mi"}
    kube.apply(platform.service(NAME, spec), namespace=NAMESPACE)
    eventually("the service's first status", lambda: _reconciled(kube), timeout=60)
    return platform.create_key(kube, "demo", NAMESPACE)


def way_out(kube: Kube) -> str:
    """Open a way to OpenAI for the gateway of the local cluster; return the proxy, or ""."""
    if kube.context or not openai_key():
        return ""
    command = [sys.executable, "hack/cluster/main.py", "relay", f"{platform.OPENAI_HOST}:443"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def chart_values(proxy: str) -> dict[str, Any]:
    """The lab's values; providers are reached through the proxy, if there is one."""
    values = platform.values()
    return values | {"gateway": values["gateway"] | {"httpsProxy": proxy}}


def openai_key() -> str:
    """The user's key; without one the cloud is a second model server."""
    return os.environ.get("OPENAI_API_KEY", "")


def cloud(kube: Kube) -> str:
    """Set up where requests spill to; return its model."""
    if key := openai_key():
        screen.note(price_of_a_run())
        platform.use_openai(kube, ["*"], key)
        return platform.OPENAI_MODEL
    platform.start_cloud(kube, ["*"])
    return platform.CLOUD_MODEL


def price_of_a_run() -> str:
    """What the user's OpenAI account is about to be charged, in words."""
    price = {name: float(dollars) for name, dollars in platform.PRICE.items()}
    each = (
        PROMPT_TOKENS * price["inputPerMTok"] + Client.max_tokens * price["outputPerMTok"]
    ) / 1e6
    return (
        f"requests that spill go to OpenAI, model {platform.OPENAI_MODEL}, and cost money: at most "
        f"${each:.5f} each ({PROMPT_TOKENS} tokens in, {Client.max_tokens} out), about "
        f"{USUALLY_SPILLED} in a run: ${each * USUALLY_SPILLED:.2f}"
    )


def quota() -> dict[str, Any]:
    """Room for two replicas in the demo's namespace, whatever the cluster has."""
    spec = {"hard": {"pods": str(PLACES)}}
    metadata = {"name": "two-replicas"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}


@contextmanager
def gateway(kube: Kube) -> Iterator[str]:
    """The gateway's address on this machine: a node port, or a forwarded one elsewhere."""
    if not kube.context:
        yield platform.LOCAL_GATEWAY
        return
    with forwarded(kube, platform.NAMESPACE, "overspill-gateway", 80) as url:
        yield url


def _reconciled(kube: Kube) -> bool:
    service = kube.get("infsvc", NAME, NAMESPACE) or {}
    generation = service.get("metadata", {}).get("generation")
    return bool(service.get("status", {}).get("observedGeneration") == generation)


def at_zero(watcher: Watcher) -> None:
    """An earlier run may have left replicas: wait until they have gone."""
    screen.wait(
        "the service is at zero",
        2,
        lambda: (watcher.now.pods == 0, f"{watcher.now.pods} pods"),
        180,
    )


def next_steps(kube: Kube) -> None:
    """Print what to try now."""
    screen.step("It is still running. Try:")
    local = [f"export KUBECONFIG={kube.kubeconfig}"] if not kube.context else []
    for line in (
        *local,
        f"export PATH={ROOT / '.venv' / 'bin'}:{kube.path}:$PATH",
        "kubectl get infsvc -A",
        f"kubectl describe infsvc {NAME} -n {NAMESPACE}",
        "overspill check",
        f"overspill chat {NAME} -n {NAMESPACE}",
        f"overspill why {NAME} -n {NAMESPACE}",
        "make demo-down",
    ):
        screen.console.print(f"  {line}", soft_wrap=True)


def play(kube: Kube, key: str) -> Run:
    """Run the stages, up to the first that does not happen."""
    with gateway(kube) as url, Watcher(kube, NAMESPACE, NAME) as watcher:
        at_zero(watcher)
        run = Run(Client(url=f"{url}/v1", key=key, model=NAME), watcher)
        for name, title, action in STAGES:
            run.stage(name, title, action)
            if not run.stages[-1].ok:
                break
    return run


def main() -> int:
    """Run the demo; return the exit status."""
    start = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        kube = build()
    except guard.NotOurs as error:
        screen.note(f"[red]{error}[/red]")
        return 1
    run = play(kube, prepare(kube))
    result = report.write(run, FOLDER)
    plots.draw(run, FOLDER / "demo.png")
    report.show(result)
    report.show_costs(kube.get("infsvc", NAME, NAMESPACE) or {})
    where = FOLDER.relative_to(ROOT)
    screen.note(f"{len(run.sent)} requests in {where}/requests.jsonl, plots in {where}/demo.png")
    next_steps(kube)
    verdict = "[green]passed[/green]" if result["passed"] else "[red]did not pass[/red]"
    screen.step(f"The demo {verdict} in {time.monotonic() - start:.0f} s")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
