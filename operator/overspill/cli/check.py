"""`overspill check`: is everything ready, and what to do if not?

Gather first (I/O), then judge (pure): each finding says what is, and the remedy where it is not
good. Limits: a Prometheus outside the cluster cannot be asked from here; the operator's own
verdict on it (ScalingActive of the services) is shown instead.
"""

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from overspill import __version__
from overspill.api.conditions import Condition
from overspill.api.crd import RESOURCES
from overspill.api.names import GROUP
from overspill.cli import show
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster, ClusterError, NotFound
from overspill.cluster.kinds import (
    CRD,
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_SERVICE,
    POD,
    SERVICE,
    Kind,
)

Object = dict[str, Any]
CRDS = tuple(f"{resource.plural}.{GROUP}" for resource in RESOURCES)
IMAGE_VOLUMES = (1, 35)  # Kubernetes minor since which oci:// models work without a feature gate


class Verdict(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    verdict: Verdict
    message: str
    remedy: str = ""


@dataclass
class Facts:
    """What the cluster says; None means that the object is not there."""

    server: str = ""
    version: tuple[int, int] = (0, 0)
    crds: dict[str, Object | None] = field(default_factory=dict)
    parts: dict[str, Object | None] = field(default_factory=dict)  # Deployments by part
    pods: dict[str, list[Object]] = field(default_factory=dict)  # by part
    prometheus_url: str = ""
    prometheus: str | None = None  # "" reachable, text what went wrong, None not asked
    services: list[Object] = field(default_factory=list)
    providers: list[Object] = field(default_factory=list)


def run(target: Target, namespace: str, output: Output) -> bool:
    """Print the report; return whether nothing failed.

    :param namespace: of the services to look at, empty for all.
    """
    facts = connected(target, lambda cluster: gather(cluster, target, namespace))
    findings = judge(facts, target)
    ok = all(f.verdict is not Verdict.FAILED for f in findings)
    if output is Output.JSON:
        show.as_json({"ok": ok, "findings": [asdict(f) for f in findings]})
        return ok
    rows = [[f.what, f.verdict.value, f.message] for f in findings]
    show.table(["what", "verdict", "found"], rows)
    for finding in findings:
        if finding.remedy:
            show.line(f"\n{finding.what}: {finding.remedy}")
    return ok


async def gather(cluster: Cluster, target: Target, namespace: str) -> Facts:
    """Read what the report needs.

    :raises ClusterError: when the cluster cannot be reached or refuses.
    """
    facts = Facts(server=cluster.server, version=await cluster.version())
    facts.crds = {name: await _get(cluster, CRD, "", name) for name in CRDS}
    names = {"operator": target.operator, "gateway": target.gateway}
    for part, name in names.items():
        facts.parts[part] = await _get(cluster, DEPLOYMENT, target.namespace, name)
        selector = f"app.kubernetes.io/instance={target.release},app.kubernetes.io/component={part}"
        facts.pods[part] = (await cluster.list(POD, target.namespace, labels=selector)).items
    if all(facts.crds.values()):
        facts.services = (await cluster.list(INFERENCE_SERVICE, namespace)).items
        facts.providers = (await cluster.list(INFERENCE_PROVIDER, namespace)).items
    facts.prometheus_url = prometheus_url(facts.parts["operator"])
    facts.prometheus = await _ask_prometheus(cluster, facts.prometheus_url)
    return facts


async def _get(cluster: Cluster, kind: Kind, namespace: str, name: str) -> Object | None:
    try:
        return await cluster.get(kind, namespace, name)
    except NotFound:
        return None


def prometheus_url(operator: Object | None) -> str:
    """Return the URL that the operator was given, "" for none."""
    if operator is None:
        return ""
    env = operator["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return next((e.get("value", "") for e in env if e["name"] == "OVERSPILL_PROMETHEUS_URL"), "")


_IN_CLUSTER = re.compile(r"(https?)://([-a-z0-9]+)\.([-a-z0-9]+)(?:\.svc[^:/]*)?(?::(\d+))?(/.*)?")


async def _ask_prometheus(cluster: Cluster, url: str) -> str | None:
    """Ask it through the API server's proxy, where its URL is that of a Service."""
    match = _IN_CLUSTER.fullmatch(url)
    if not match:
        return None
    scheme, name, namespace, port, path = match.groups()
    service = f"{scheme}:{name}:{port or (443 if scheme == 'https' else 80)}"
    ready = SERVICE.path(namespace, service, "proxy") + (path or "").rstrip("/") + "/-/ready"
    try:
        status, body = await cluster.raw("GET", ready)
    except ClusterError as error:
        return str(error)
    return "" if status == 200 else f"HTTP {status}: {body[:200].decode(errors='replace').strip()}"


def judge(facts: Facts, target: Target) -> list[Finding]:
    """Return the report."""
    findings = [_version(facts)]
    findings += [_crd(name, crd) for name, crd in facts.crds.items()]
    findings += [_part(part, facts, target) for part in facts.parts]
    findings.append(_prometheus(facts))
    findings += [_resource("provider", p) for p in facts.providers]
    return findings + [_resource("service", s) for s in facts.services]


def _version(facts: Facts) -> Finding:
    text = f"Kubernetes {facts.version[0]}.{facts.version[1]} at {facts.server}"
    if facts.version >= IMAGE_VOLUMES:
        return Finding("cluster", Verdict.OK, text)
    remedy = "oci:// models need Kubernetes 1.35 or newer; use pvc:// here"
    return Finding("cluster", Verdict.WARNING, text, remedy)


def _crd(name: str, crd: Object | None) -> Finding:
    what = f"definition {name.split('.')[0]}"
    if crd is None:
        remedy = "install the chart, or run `overspill crds apply`"
        return Finding(what, Verdict.FAILED, "not installed", remedy)
    if _condition(crd, "Established").status != "True":
        remedy = f"see `kubectl describe crd {name}`"
        return Finding(what, Verdict.FAILED, "not established", remedy)
    return Finding(what, Verdict.OK, "established")


def _part(part: str, facts: Facts, target: Target) -> Finding:
    deployment = facts.parts[part]
    if deployment is None:
        where = f"no Deployment {target.release}-{part} in namespace {target.namespace}"
        remedy = "install the chart there, or name its place with --release and --system-namespace"
        return Finding(part, Verdict.FAILED, where, remedy)
    wanted = deployment["spec"].get("replicas", 1)
    ready = deployment.get("status", {}).get("readyReplicas", 0)
    version = deployment["metadata"].get("labels", {}).get("app.kubernetes.io/version", "unknown")
    text = f"{ready} of {wanted} ready, version {version}"
    if ready < max(1, wanted):
        return Finding(part, _less(ready), text, _pods_remedy(part, facts.pods[part], target))
    if version != __version__:
        remedy = f"this command is {__version__}: upgrade the chart or the command to the same"
        return Finding(part, Verdict.WARNING, text, remedy)
    return Finding(part, Verdict.OK, text)


def _less(ready: int) -> Verdict:
    return Verdict.WARNING if ready else Verdict.FAILED


def _pods_remedy(part: str, pods: list[Object], target: Target) -> str:
    """Return why the first pod that is not ready is not, and where to look on."""
    logs = f"see `kubectl logs -n {target.namespace} deployment/{target.release}-{part}`"
    faults = [fault for pod in pods if (fault := _pod_fault(pod))]
    if not faults:
        return logs if pods else f"scale it up: the Deployment {target.release}-{part} has no pods"
    if "Image" in faults[0]:
        return f"{faults[0]}; set image.registry of the chart to where the images are"
    return f"{faults[0]}; {logs}"


def _pod_fault(pod: Object) -> str:
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    scheduled = _condition(pod, "PodScheduled")
    return scheduled.message if scheduled.status == "False" else ""


def _prometheus(facts: Facts) -> Finding:
    url = facts.prometheus_url
    if not url:
        remedy = "services scale on demand only, not on latency; set prometheus.url or "
        remedy += "prometheus.enabled=true in the chart's values"
        return Finding("prometheus", Verdict.WARNING, "not configured", remedy)
    if facts.prometheus is None:
        return Finding("prometheus", Verdict.OK, f"{url} is not in this cluster: not asked")
    if facts.prometheus:
        # The API server itself did not get there or was not allowed to: the operator still may.
        unseen = "trying to reach service" in facts.prometheus or "forbidden" in facts.prometheus
        remedy = f"is it up? It was asked at {url}"
        if unseen:
            remedy = "asked through the API server, which a NetworkPolicy or a missing right may "
            remedy += "keep out: ScalingActive of the services says what the operator finds"
        verdict = Verdict.WARNING if unseen else Verdict.FAILED
        return Finding("prometheus", verdict, facts.prometheus, remedy)
    return Finding("prometheus", Verdict.OK, f"{url} is ready")


_ON_THE_WAY = {
    "Loading": "its model is on the way: wait",
    "Provisioning": "a node for it is on the way: wait",
}


def _resource(what: str, obj: Object) -> Finding:
    """Judge a service or provider by its Ready; what else is False is what to look at."""
    metadata = obj["metadata"]
    name = f"{what} {metadata['namespace']}/{metadata['name']}"
    ready = _condition(obj, "Ready")
    text = ": ".join(part for part in (ready.reason, ready.message) if part)
    others = [c for c in _conditions(obj) if c.status == "False" and c.type != "Ready"]
    remedy = "; ".join(f"{c.type}={c.status} {c.reason}: {c.message}" for c in others)
    if ready.status == "True":
        return Finding(name, Verdict.WARNING if others else Verdict.OK, text, remedy)
    if ready.reason in _ON_THE_WAY:
        return Finding(name, Verdict.WARNING, text, _ON_THE_WAY[ready.reason])
    if not ready.reason:
        return Finding(name, Verdict.FAILED, "not looked at yet", "is the operator ready?")
    kind = "infsvc" if what == "service" else "infprov"
    describe = f"see `kubectl describe {kind} {metadata['name']} -n {metadata['namespace']}`"
    return Finding(name, Verdict.FAILED, text, remedy or describe)


def _conditions(obj: Object) -> list[Condition]:
    fields = ("type", "status", "reason", "message")
    raw = obj.get("status", {}).get("conditions") or []
    return [Condition.model_construct(**{f: c.get(f, "") for f in fields}) for c in raw]


_UNKNOWN = Condition(type="Unknown", status="Unknown", reason="")


def _condition(obj: Object, type_: str) -> Condition:
    return next((c for c in _conditions(obj) if c.type == type_), _UNKNOWN)
