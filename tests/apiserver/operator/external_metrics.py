"""A stand-in for an adapter of external metrics, such as prometheus-adapter's or KEDA's.

It answers external.metrics.k8s.io/v1beta1 with what the operator's own page of metrics says now.
The API server reaches it as it reaches every adapter, through an APIService whose certificate it
verifies; the Service behind that is a name of this machine.

* https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
* https://github.com/kubernetes/metrics/blob/v0.33.1/pkg/apis/external_metrics/v1beta1/types.go
"""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import trustme
import yaml
from operator_world import Object, World
from prometheus_client.parser import text_string_to_metric_families

GROUP, VERSION, SERVICE = "external.metrics.k8s.io", "v1beta1", "adapter"
API = f"{GROUP}/{VERSION}"
NAME = f"{VERSION}.{GROUP}"


class Adapter(BaseHTTPRequestHandler):
    """Answers for one page of metrics."""

    page = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["apis", group, version] if f"{group}/{version}" == API:
                self.answer({"kind": "APIResourceList", "groupVersion": API, "resources": []})
            case ["apis", group, version, "namespaces", _, metric] if f"{group}/{version}" == API:
                selector = parse_qs(url.query).get("labelSelector", [""])[0]
                labels = dict(pair.split("=") for pair in selector.split(","))
                items = list(self.values(metric, labels))
                self.answer({"kind": "ExternalMetricValueList", "items": items})
            case _:
                self.send_error(404)

    def values(self, metric: str, labels: dict[str, str]) -> Iterator[Object]:
        """Yield the series of a metric that have these labels."""
        with urlopen(self.page, timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for sample in (s for family in families for s in family.samples if s.name == metric):
            if labels.items() <= sample.labels.items():
                value = {"metricName": metric, "metricLabels": sample.labels, "timestamp": now}
                yield {**value, "value": f"{sample.value:g}"}

    def answer(self, content: Object) -> None:
        body = json.dumps({"apiVersion": API, "metadata": {}, **content}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def adapter(world: World, page: str) -> Iterator[None]:
    """Serve external metrics to the cluster.

    :param page: URL of a page of metrics. One test at a time: the cluster has one such API.
    """
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(f"{SERVICE}.{world.namespace}.svc").configure_cert(tls)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Adapter,), {"page": page}))
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
    objects = yaml.safe_dump_all(_objects(world.namespace, server.server_port, bundle))
    try:
        world.kube.kubectl("create", "-f", "-", stdin=objects)
        yield
    finally:
        # First: discovery, and with it the end of every namespace, waits for an API that is gone.
        world.kube.kubectl("delete", "apiservice", NAME, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join()


def _objects(namespace: str, port: int, bundle: str) -> list[Object]:
    service = {"namespace": namespace, "name": SERVICE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": NAME},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "service": {**service, "port": port},
                "caBundle": bundle,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
