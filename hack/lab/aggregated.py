"""APIs that others serve behind the cluster's own, such as those of metrics.

The API server reaches each through an APIService whose certificate it verifies; the Service behind
that is a name of this machine.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

import abc
import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import trustme

from lab.kube import Kube

Object = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """An API of a server of this machine, and the Service that leads there."""

    group: str
    version: str
    namespace: str
    service: str

    @property
    def host(self) -> str:
        """The name that the server's certificate must have."""
        return f"{self.service}.{self.namespace}.svc"

    @property
    def path(self) -> str:
        """What stands after /apis/."""
        return f"{self.group}/{self.version}"

    @property
    def name(self) -> str:
        """The APIService's."""
        return f"{self.version}.{self.group}"


class Metrics(BaseHTTPRequestHandler, abc.ABC):
    """Answers for an API of metrics, as an adapter does: GET, always in a namespace."""

    api: Api
    kind: str  # of its lists

    def do_GET(self) -> None:
        """Answer discovery and lists."""
        url = urlsplit(self.path)
        match [unquote(part) for part in url.path.strip("/").split("/")]:
            case ["apis", group, version] if f"{group}/{version}" == self.api.path:
                body = {"kind": "APIResourceList", "groupVersion": self.api.path, "resources": []}
                self.answer(body)
            case ["apis", group, version, "namespaces", namespace, *rest] if (
                f"{group}/{version}" == self.api.path
            ):
                selector = parse_qs(url.query).get("labelSelector", [""])[0]
                labels = dict(pair.split("=") for pair in selector.split(",") if pair)
                self.answer({"kind": self.kind, "items": list(self.items(namespace, rest, labels))})
            case _:
                self.send_error(404)

    @abc.abstractmethod
    def items(self, namespace: str, path: list[str], labels: dict[str, str]) -> Iterator[Object]:
        """Yield what a list holds.

        :param path: what follows the namespace, ending in the metric's name.
        :param labels: that were asked for.
        """

    @staticmethod
    def now() -> str:
        """The time as Kubernetes writes it."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(self, content: Object) -> None:
        """Send an object of this API."""
        body = json.dumps({"apiVersion": self.api.path, "metadata": {}, **content}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(kube: Kube, handler: type[Metrics]) -> Iterator[None]:
    """Serve an API to the cluster. One at a time: a cluster has one of each name."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(handler.api.host).configure_cert(tls)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        with registered(kube, handler.api, server.server_port, authority):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def registered(kube: Kube, api: Api, port: int, authority: trustme.CA) -> Iterator[None]:
    """Let the API server ask a port of this machine for an API, until the block ends.

    :param authority: that issued the server's certificate.
    """
    try:
        kube.apply(*_objects(api, port, base64.b64encode(authority.cert_pem.bytes()).decode()))
        kube.kubectl("wait", f"apiservice/{api.name}", "--for=condition=Available", "--timeout=60s")
        yield
    finally:
        # First: discovery, and with it the end of every namespace, waits for an API that is gone.
        kube.kubectl("delete", "apiservice", api.name, "--ignore-not-found")
        kube.delete("service", api.service, api.namespace)


def _objects(api: Api, port: int, bundle: str) -> list[Object]:
    service = {"namespace": api.namespace, "name": api.service}
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
            "metadata": {"name": api.name},
            "spec": {
                "group": api.group,
                "version": api.version,
                "service": {**service, "port": port},
                "caBundle": bundle,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
