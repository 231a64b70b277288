from typing import Any

import pytest

from overspill import __version__
from overspill.cli.check import CRDS, Facts, Finding, Verdict, judge, prometheus_url
from overspill.cli.options import Target

Object = dict[str, Any]
# As an API server says it that a NetworkPolicy keeps out.
UNREACHED = "HTTP 503: error trying to reach service: dial tcp 10.0.0.9:9090: i/o timeout"


def deployment(ready: int, wanted: int = 1, version: str = __version__) -> Object:
    return {
        "metadata": {"labels": {"app.kubernetes.io/version": version}},
        "spec": {"replicas": wanted},
        "status": {"readyReplicas": ready},
    }


def condition(type_: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def resource(*conditions: Object) -> Object:
    metadata = {"name": "chat", "namespace": "team-a"}
    return {"metadata": metadata, "status": {"conditions": list(conditions)}}


def facts(**changes: Any) -> Facts:
    established = {"status": {"conditions": [condition("Established", "True", "")]}}
    good: dict[str, Any] = {
        "server": "https://x",
        "version": (1, 37),
        "crds": dict.fromkeys(CRDS, established),
        "parts": {"operator": deployment(1), "gateway": deployment(2, 2)},
        "pods": {"operator": [], "gateway": []},
        "prometheus_url": "http://p.m.svc:9090",
        "prometheus": "",
        "services": [resource(condition("Ready", "True", "Serving"))],
    }
    return Facts(**good | changes)


def found(given: Facts, what: str) -> Finding:
    return next(f for f in judge(given, Target()) if f.what == what)


def test_a_good_cluster_is_all_ok() -> None:
    assert {f.verdict for f in judge(facts(), Target())} == {Verdict.OK}


def waiting(reason: str, message: str) -> list[Object]:
    state = {"waiting": {"reason": reason, "message": message}}
    return [{"status": {"containerStatuses": [{"state": state}]}}]


@pytest.mark.parametrize(
    ("changes", "what", "verdict", "remedy"),
    [
        ({"version": (1, 34)}, "cluster", Verdict.WARNING, "use pvc://"),
        ({"prometheus_url": ""}, "prometheus", Verdict.WARNING, "prometheus.enabled=true"),
        ({"prometheus": "HTTP 503"}, "prometheus", Verdict.FAILED, "http://p.m.svc:9090"),
        (
            {"prometheus": "HTTP 503: no endpoints available"},
            "prometheus",
            Verdict.FAILED,
            "is it up",
        ),
        ({"prometheus": UNREACHED}, "prometheus", Verdict.WARNING, "NetworkPolicy"),
        ({"prometheus": 'services "p" is forbidden'}, "prometheus", Verdict.WARNING, "right"),
        ({"prometheus": None}, "prometheus", Verdict.OK, ""),
        (
            {"parts": {"operator": None, "gateway": deployment(1)}},
            "operator",
            Verdict.FAILED,
            "install the chart",
        ),
        ({"parts": {"gateway": deployment(1, 2)}}, "gateway", Verdict.WARNING, "kubectl logs"),
        ({"parts": {"gateway": deployment(0, 0)}}, "gateway", Verdict.FAILED, "scale it up"),
        (
            {"parts": {"gateway": deployment(1, 1, "0.0.9")}},
            "gateway",
            Verdict.WARNING,
            "upgrade the chart or the command",
        ),
        (
            {
                "parts": {"gateway": deployment(0)},
                "pods": {"gateway": waiting("ImagePullBackOff", "no such host")},
            },
            "gateway",
            Verdict.FAILED,
            "set image.registry",
        ),
        (
            {
                "parts": {"gateway": deployment(0)},
                "pods": {"gateway": waiting("CrashLoopBackOff", "")},
            },
            "gateway",
            Verdict.FAILED,
            "kubectl logs -n overspill-system deployment/overspill-gateway",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    changes: dict[str, Any], what: str, verdict: Verdict, remedy: str
) -> None:
    pods: dict[str, Any] = {"pods": {"gateway": [{}], "operator": []}}
    empty = changes.get("parts", {}).get("gateway", {}).get("spec", {}).get("replicas") == 0
    pods = {"pods": {"gateway": [], "operator": []}} if empty else pods
    finding = found(facts(**pods | changes), what)
    assert finding.verdict is verdict
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("conditions", "verdict", "remedy"),
    [
        ([], Verdict.FAILED, "is the operator ready?"),
        ([condition("Ready", "False", "NotReady", "x")], Verdict.FAILED, "kubectl describe infsvc"),
        (
            [
                condition("Ready", "False", "ModelNotReady"),
                condition("ModelReady", "False", "ModelNotFound", "no GGUF in /model"),
            ],
            Verdict.FAILED,
            "ModelReady=False ModelNotFound: no GGUF in /model",
        ),
        (
            [
                condition("Ready", "True", "Serving"),
                condition("ScalingActive", "False", "PrometheusUnavailable", "refused"),
            ],
            Verdict.WARNING,
            "PrometheusUnavailable",
        ),
        (
            [condition("Ready", "False", "Loading", "3.1 of 16.0 GB (19 %)")],
            Verdict.WARNING,
            "model is on the way",
        ),
        (
            [
                condition("Ready", "False", "Provisioning", "a node is on its way: x"),
                condition("CapacityAvailable", "False", "Provisioning", "a node is on its way: x"),
            ],
            Verdict.WARNING,
            "node for it is on the way",
        ),
    ],
)
def test_a_service_is_judged_by_its_conditions(
    conditions: list[Object], verdict: Verdict, remedy: str
) -> None:
    finding = found(facts(services=[resource(*conditions)]), "service team-a/chat")
    assert finding.verdict is verdict
    assert remedy in finding.remedy


def test_the_operator_knows_which_prometheus() -> None:
    env = [{"name": "OVERSPILL_PROMETHEUS_URL", "value": "http://p.m.svc:9090"}]
    container = {"env": env}
    given = {"spec": {"template": {"spec": {"containers": [container]}}}}
    assert prometheus_url(given) == "http://p.m.svc:9090"
    assert prometheus_url(None) == ""
