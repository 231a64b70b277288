"""Where the gateways' internal servers are, from the EndpointSlices of their Service."""

from typing import Any

from overspill.api.names import GATEWAY_INTERNAL_PORT
from overspill.cluster import Cluster
from overspill.cluster.kinds import ENDPOINT_SLICE


class Addresses:
    """Follows the endpoints of one Service that answer: ready ones, and those that still finish."""

    def __init__(self, cluster: Cluster, namespace: str, service: str) -> None:
        """Follow ``service``; :meth:`run` does it."""
        self._cluster = cluster
        self._namespace = namespace
        self._service = service
        self._slices: dict[str, dict[str, Any]] = {}

    def __call__(self) -> set[str]:
        """Return ``host:port`` of each endpoint, as known now.

        A gateway that stops is not ready, and has requests to finish and money to give back.
        """
        found: set[str] = set()
        for piece in self._slices.values():
            ports = [port["port"] for port in piece.get("ports") or [] if port.get("port")]
            port = ports[0] if ports else GATEWAY_INTERNAL_PORT
            for endpoint in piece.get("endpoints") or []:
                conditions = endpoint.get("conditions") or {}
                if conditions.get("ready", True) or conditions.get("terminating"):
                    found |= {_join(host, port) for host in endpoint["addresses"]}
        return found

    async def run(self) -> None:
        """Watch until cancelled."""
        labels = f"kubernetes.io/service-name={self._service}"
        async for event in self._cluster.watch(ENDPOINT_SLICE, self._namespace, labels=labels):
            if event.type == "SYNC":
                self._slices = {item["metadata"]["name"]: item for item in event.items}
            elif event.type == "DELETED":
                self._slices.pop(event.obj["metadata"]["name"], None)
            else:
                self._slices[event.obj["metadata"]["name"]] = event.obj


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
