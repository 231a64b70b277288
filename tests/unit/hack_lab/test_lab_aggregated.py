"""What a stand-in for an adapter of metrics reads from the API server's requests."""

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from urllib.request import urlopen

from lab import aggregated

API = aggregated.Api("custom.metrics.k8s.io", "v1beta2", "lab", "adapter")


class Echo(aggregated.Metrics):
    api = API
    kind = "MetricValueList"

    def items(
        self, namespace: str, path: list[str], labels: dict[str, str]
    ) -> Iterator[aggregated.Object]:
        yield {"namespace": namespace, "path": path, "labels": labels}


def test_the_star_for_all_pods_comes_quoted() -> None:
    """As the HPA's controller sends it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/apis/{API.path}/namespaces/team"
    try:
        with urlopen(f"{url}/pods/%2A/load?labelSelector=a%2Fb%3Dc", timeout=5) as answer:
            body = json.load(answer)
    finally:
        server.shutdown()
        server.server_close()
    assert body["kind"] == "MetricValueList"
    found = {"namespace": "team", "path": ["pods", "*", "load"], "labels": {"a/b": "c"}}
    assert body["items"] == [found]
