"""A stand-in for an adapter of external metrics, such as prometheus-adapter's or KEDA's.

It answers external.metrics.k8s.io/v1beta1 with what the operator's own page of metrics says now:
https://github.com/kubernetes/metrics/blob/v0.33.1/pkg/apis/external_metrics/v1beta1/types.go
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from urllib.request import urlopen

from operator_world import Object, World
from prometheus_client.parser import text_string_to_metric_families

from lab import aggregated


class Adapter(aggregated.Metrics):
    """Answers for one page of metrics."""

    kind = "ExternalMetricValueList"
    page = ""

    def items(self, namespace: str, path: list[str], labels: dict[str, str]) -> Iterator[Object]:
        """Yield the series of a metric that have these labels."""
        with urlopen(self.page, timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        for sample in (s for family in families for s in family.samples if [s.name] == path):
            if labels.items() <= sample.labels.items():
                value = {"metricName": sample.name, "metricLabels": sample.labels}
                yield {**value, "timestamp": self.now(), "value": f"{sample.value:g}"}


def adapter(world: World, page: str) -> AbstractContextManager[None]:
    """Serve external metrics to the cluster.

    :param page: URL of a page of metrics. One test at a time: the cluster has one such API.
    """
    api = aggregated.Api("external.metrics.k8s.io", "v1beta1", world.namespace, "adapter")
    return aggregated.served(world.kube, type("Bound", (Adapter,), {"api": api, "page": page}))
