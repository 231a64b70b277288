"""Who sets the number of replicas in bench/live.py: us, a plain HPA, or KEDA.

The HPA's metric comes from a stand-in for prometheus-adapter, which answers
custom.metrics.k8s.io/v1beta2 from Prometheus:
https://github.com/kubernetes/metrics/blob/v0.37.2/pkg/apis/custom_metrics/v1beta2/types.go
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from e2e.story import Story
from lab import aggregated
from lab.kube import Kube, eventually

METRIC = "requests_at_hand"  # of one replica: that it computes, and that wait in it
NAME = "chat"
TARGET = {"apiVersion": "overspill.dev/v1alpha1", "kind": "InferenceService", "name": NAME}
Object = dict[str, Any]


def at_hand(namespace: str) -> str:
    """Return PromQL: what each replica has at hand."""
    of = f'{{service_namespace="{namespace}"}}'
    return f"paced_active{of} + paced_pending{of}"


class Adapter(aggregated.Metrics):
    """Answers for the replicas of a namespace."""

    kind = "MetricValueList"
    prometheus = ""  # its URL

    def items(self, namespace: str, path: list[str], labels: dict[str, str]) -> Iterator[Object]:
        """Yield what each replica has at hand; there is one service in a namespace."""
        if path != ["pods", "*", METRIC]:
            return
        for series in query(self.prometheus, f"sum by (pod) ({at_hand(namespace)})"):
            pod = {"kind": "Pod", "apiVersion": "/v1", "namespace": namespace}
            yield {
                "describedObject": pod | {"name": series["metric"]["pod"]},
                "metric": {"name": METRIC},
                "timestamp": self.now(),
                "value": series["value"][1],
            }


def query(prometheus: str, promql: str) -> list[Object]:
    """Return the series of an instant query."""
    url = f"{prometheus}/api/v1/query?{urlencode({'query': promql})}"
    with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])


def adapter(kube: Kube, namespace: str, prometheus: str) -> AbstractContextManager[None]:
    """Serve the metric of replicas to the cluster.

    :param namespace: for the adapter's Service.
    """
    api = aggregated.Api("custom.metrics.k8s.io", "v1beta2", namespace, "adapter")
    bound = type("Bound", (Adapter,), {"api": api, "prometheus": prometheus})
    return aggregated.served(kube, bound)


def hpa(target: float, most: int) -> Object:
    """Return an HPA with its default behaviour.

    :param target: requests at hand that a replica should have.
    """
    pods = {"metric": {"name": METRIC}, "target": {"type": "AverageValue",
                                                   "averageValue": f"{target:g}"}}  # fmt: skip
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": TARGET,
            "minReplicas": 1,
            "maxReplicas": most,
            "metrics": [{"type": "Pods", "pods": pods}],
        },
    }


def scaled_object(namespace: str, prometheus: str, target: float, most: int) -> Object:
    """Return KEDA's object with its defaults, but that one replica stays.

    :param target: requests at hand that a replica should have.
    """
    trigger = {
        "serverAddress": prometheus,
        "query": f"sum({at_hand(namespace)})",
        "threshold": f"{target:g}",
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": TARGET,
            "minReplicaCount": 1,
            "maxReplicaCount": most,
            "triggers": [{"type": "prometheus", "metadata": trigger}],
        },
    }


@contextmanager
def scaling(stories: dict[str, Story], prometheus: str, target: float, most: int) -> Iterator[None]:
    """Let each system decide over its own service, until the end of the block.

    :param target: requests at hand that the two others keep a replica at.
    :param most: replicas.
    """
    ours, plain, keda = (stories[name] for name in ("overspill", "hpa", "keda"))
    made = scaled_object(keda.namespace, prometheus, target, most)
    try:
        keda.kube.apply(made, namespace=keda.namespace)
        eventually(
            "KEDA has made its HPA",
            lambda: keda.kube.get("hpa", f"keda-hpa-{NAME}", keda.namespace),
            timeout=60,
        )
        plain.kube.apply(hpa(target, most), namespace=plain.namespace)
        objective = {"spec": {"scaling": {"mode": "Objective"}}}
        ours.kube.patch("infsvc", NAME, ours.namespace, objective)
        yield
    finally:
        keda.kube.delete("scaledobject", NAME, keda.namespace, "--timeout=60s")
