"""The one writer of replica counts, used by the autoscaler's loop and by the controller."""

from overspill.api.names import AUTOSCALER_MANAGER
from overspill.cluster import Cluster
from overspill.cluster.kinds import DEPLOYMENT
from overspill.runtimes import child_name


class ScaleWriter:
    """The one writer of replica counts."""

    def __init__(self, cluster: Cluster) -> None:
        """Write through a guarded cluster."""
        self._cluster = cluster

    async def write_scale(self, key: str, replicas: int, resource_version: str) -> None:
        """Set the count of a service's Deployment, if it is still as it was seen.

        :param key: the service's ``namespace/name``.
        :param resource_version: of the Deployment as observed.
        :raises Conflict: when the Deployment changed meanwhile.
        """
        namespace, name = key.split("/")
        scale = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": child_name(name),
                "namespace": namespace,
                "resourceVersion": resource_version,
            },
            "spec": {"replicas": replicas},
        }
        await self._cluster.apply(
            DEPLOYMENT, scale, manager=AUTOSCALER_MANAGER, subresource="scale"
        )
