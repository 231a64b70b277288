"""Services by the thousand: our operator and a plain kopf operator, in one run.

    make bench-operator                          100, 1,000 and 5,000 services: an hour
    make bench-operator BENCH="--services 100"   one size: six minutes

Each target runs as a process of this machine against a real API server ($KUBECONFIG), with a
service account's rights in a namespace of its own. Services are at zero with all children, so
that no node limits anything. Measured for each size:

* seconds     from the first creation to the operator's last write, all children and status there;
              the operator runs already
* writes      per service, counted in the API server's audit log, leases apart
* edit p99    from the edit of one service to its Deployment, while ten others a second are edited
* idle        writes within 60 s without a change; and writes after a restart
* peak RSS    of the process, over all of it; CPU seconds until all are settled

Writes build/bench/operator.json after each row, and operator.png at the end; says which of the
project's bars are met. Limits: the API server, etcd, the controllers and what measures share the
machine's cores with the operator.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

from controller_bars import bars
from controller_load import LONGEST, Audit, Load, Target, measure
from lab.account import OPERATOR, log_in, operator_rights, watches_all
from lab.kube import ROOT, Kube
from overspill.cluster import Cluster

RESULT = ROOT / "build" / "bench" / "operator.json"
AUDIT_LOG = "/var/lib/overspill-cluster/audit/audit.log"
SIZES = (100, 1000, 5000)
PROGRAMS = {
    "overspill": (sys.executable, "-c", "from overspill.controller.main import run; run()"),
    "plain-kopf": (sys.executable, str(ROOT / "bench" / "plain_kopf.py")),
}
Object = dict[str, Any]


def rights(kube: Kube, namespace: str) -> list[Object]:
    """What the chart gives the operator in a namespace, and patches of services beside it.

    A plain kopf operator keeps its progress in annotations of the services.
    """
    api = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["overspill.dev", ""],
        "resources": ["inferenceservices", "inferenceservices/status", "events"],
        "verbs": ["get", "list", "watch", "patch", "create"],
    }
    metadata = {"name": "plain-kopf", "namespace": namespace}
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "plain-kopf"},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": namespace}],
    }
    return [*operator_rights(kube, namespace), role, binding]


@contextmanager
def target(kube: Kube, name: str, namespace: str, folder: Path) -> Iterator[Target]:
    """An operator to measure, with a namespace of its own that is removed afterwards."""
    remove(kube, namespace)  # of a run that was cut off
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        kube.apply(*rights(kube, namespace))
        env = {
            "KUBECONFIG": str(log_in(kube, OPERATOR, namespace, folder / namespace)),
            "OVERSPILL_NAMESPACE": namespace,
            "OVERSPILL_WATCH_NAMESPACES": namespace,
            "OVERSPILL_ENGINE_IMAGE": "registry.example/engine:1",
            "OVERSPILL_ENGINE_GPU_IMAGE": "registry.example/engine-gpu:1",
            "OVERSPILL_METRICS_PORT": "0",
            "OVERSPILL_LOG_LEVEL": "warning",
        }
        user = f"system:serviceaccount:{namespace}:{OPERATOR}"
        yield Target(name, PROGRAMS[name], user, env)
    finally:
        remove(kube, namespace)


def remove(kube: Kube, namespace: str) -> None:
    """Delete a namespace and wait until it is gone."""
    longest = int(LONGEST)
    kube.kubectl(
        "delete", "namespace", namespace, "--ignore-not-found", f"--timeout={longest}s",
        timeout=longest + 30,
    )  # fmt: skip


async def run(kube: Kube, sizes: list[int], audit_log: Path, rows: list[Object]) -> list[Object]:
    """Measure both targets with each size; return the rows with these."""
    with tempfile.TemporaryDirectory() as scratch:
        for count in sizes:
            for name in PROGRAMS:
                say(f"{name} with {count} services …")
                with target(kube, name, f"bench-{name}-{count}", Path(scratch)) as chosen:
                    rows = [*rows, await one(kube, chosen, count, audit_log)]
                write(rows)
                say(json.dumps(rows[-1]))
    return rows


async def one(kube: Kube, chosen: Target, count: int, audit_log: Path) -> Object:
    """Measure one target with one size."""
    namespace = chosen.env["OVERSPILL_NAMESPACE"]
    async with Cluster.connect(kubeconfig=kube.kubeconfig) as cluster:
        with closing(Audit(audit_log, chosen.user)) as audit:
            load = Load(cluster, namespace, count, audit)
            return await measure(chosen, load, RESULT.parent / f"{chosen.name}.log")


def write(rows: list[Object]) -> None:
    """Put the file in place whole."""
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1) + "\n")
    part.replace(RESULT)


def table(rows: list[Object]) -> str:
    """The figures as a person reads them."""
    lines = ["  ".join(f"{name:>18}" for name in rows[0])]
    lines += ["  ".join(f"{value:>18}" for value in row.values()) for row in rows]
    return "\n".join(lines)


def plot(rows: list[Object], path: Path) -> None:
    """Draw seconds, writes and memory against the number of services."""
    mpl.use("Agg")
    from matplotlib import pyplot

    columns = {
        "seconds": "seconds until all are settled",
        "writes_per_service": "writes per service",
        "peak_rss_mb": "peak RSS, MB",
        "edit_p99_ms": "p99 of one edit under load, ms",
    }
    figure, axes = pyplot.subplots(1, len(columns), figsize=(15, 3.6))
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        for name in PROGRAMS:
            mine = [row for row in rows if row["target"] == name]
            services = [row["services"] for row in mine]
            axis.plot(services, [row[column] for row in mine], marker="o", label=name)
        axis.set(title=title, xlabel="services", xscale="log", ylim=(0, None))
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


START = time.monotonic()


def say(message: str) -> None:
    """A line of progress with the time since the start."""
    seconds = int(time.monotonic() - START)
    print(f"{seconds // 60:3d}:{seconds % 60:02d}  {message}", flush=True)


def main() -> None:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--services", type=int, action="append", help="a size; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the rows of other sizes")
    parser.add_argument("--audit-log", type=Path, default=Path(AUDIT_LOG))
    options = parser.parse_args()
    kubeconfig = os.environ.get("KUBECONFIG") or str(ROOT / "build" / "cluster" / "kubeconfig")
    if not (Path(kubeconfig).exists() and options.audit_log.exists()):
        sys.exit("run `make cluster-up` first, or set KUBECONFIG and --audit-log")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces are removed
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    kube = Kube(kubeconfig)
    where = watches_all(kube)
    if where:
        sys.exit(f"an operator in {where} watches all namespaces; uninstall it first")
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    sizes = options.services or list(SIZES)
    before = json.loads(RESULT.read_text()) if options.keep and RESULT.exists() else []
    kept = [row for row in before if row["services"] not in sizes]
    rows = asyncio.run(run(kube, sizes, options.audit_log, kept))
    rows.sort(key=lambda row: (row["services"], row["target"]))
    write(rows)
    plot(rows, RESULT.with_suffix(".png"))
    print(f"\n{table(rows)}\n")
    for met, text in bars(rows):
        print(f"{'met   ' if met else 'MISSED'}  {text}")
    print(f"\n{RESULT.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
