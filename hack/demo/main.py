"""`make demo`: the main job on a real cluster, from nothing, with a verdict.

Builds and starts the local cluster (or uses the context that DEMO_CONTEXT names), installs
the chart, serves a small real model on two GPUs that the cluster counts but does not have,
runs the stages of ``stages.py`` and leaves everything running. Exit status 1 when a stage
did not happen or a request failed.
"""

import os
import shutil
import subprocess
import sys
import time
from typing import Any

from demo import plots, report, screen
from demo.stages import STAGES, Run
from demo.watcher import Watcher
from lab import platform
from lab.kube import ROOT, Kube, eventually
from lab.load import Client

NAMESPACE, NAME = "demo", "chat"
GPU_HOUR = "0.80"
FOLDER = ROOT / "build" / "demo"

SPEC: dict[str, Any] = {
    "cost": {"gpuHour": GPU_HOUR},
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
        subprocess.run([sys.executable, "hack/images.py", "build"], cwd=ROOT, check=True)
        screen.note(f"using context {context}; its nodes must have the images of build/images.json")
        config = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
        return Kube(kubeconfig=config, context=context)
    subprocess.run([sys.executable, "hack/cluster/main.py", "up", "--yes"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "hack/images.py", "build", "--load"], cwd=ROOT, check=True)
    return platform.local_kube()


def prepare(kube: Kube) -> Client:
    """Install Overspill, the cloud and one service; return a client of it."""
    screen.step("Overspill by its Helm chart, a stand-in cloud, one InferenceService")
    screen.note(
        f"engine pods are limited to {platform.ENGINE_CPU} CPU each and the stand-in cloud to "
        f"{platform.CLOUD_CPU}, so that a second replica is real capacity on a small machine"
    )
    platform.install(kube, platform.values())
    screen.note(f"helm install {platform.RELEASE} -n {platform.NAMESPACE}: ready")
    platform.start_cloud(kube, ["*"])
    kube.apply(platform.namespace(NAMESPACE))
    spec = SPEC | {"spillover": platform.spillover(["ClusterFull"])}
    kube.apply(platform.service(NAME, spec), namespace=NAMESPACE)
    key = platform.create_key(kube, "demo", NAMESPACE)
    client = platform.client(key, NAME)
    eventually("the service's first status", lambda: _reconciled(kube), timeout=60)
    return client


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


def next_steps(kube: Kube, client: Client) -> None:
    """Print what to try now."""
    screen.step("It is still running. Try:")
    for line in (
        f"export KUBECONFIG={kube.kubeconfig}",
        f"export PATH={ROOT / '.venv' / 'bin'}:{kube.path}:$PATH",
        "kubectl get infsvc -A",
        f"kubectl describe infsvc {NAME} -n {NAMESPACE}",
        "overspill check",
        f"overspill chat {NAME} -n {NAMESPACE}",
        f"curl {client.url}/models -H 'Authorization: Bearer <key of: overspill keys create>'",
        "make demo-down",
    ):
        screen.console.print(f"  {line}", soft_wrap=True)


def main() -> int:
    """Run the demo; return the exit status."""
    start = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    kube = build()
    client = prepare(kube)
    with Watcher(kube, NAMESPACE, NAME) as watcher:
        at_zero(watcher)
        run = Run(client, watcher)
        for name, title, action in STAGES:
            run.stage(name, title, action)
            if not run.stages[-1].ok:
                break
    result = report.write(run, FOLDER)
    plots.draw(run, FOLDER / "demo.png")
    report.show(result)
    report.show_costs(kube.get("infsvc", NAME, NAMESPACE) or {}, float(GPU_HOUR))
    screen.note(
        f"{len(run.sent)} requests in {FOLDER.relative_to(ROOT)}/requests.jsonl, plots in demo.png"
    )
    next_steps(kube, client)
    verdict = "[green]passed[/green]" if result["passed"] else "[red]did not pass[/red]"
    screen.step(f"The demo {verdict} in {time.monotonic() - start:.0f} s")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
