"""Options that the commands share, and the connection that they lead to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:  # imported late: help must not wait for a client
    from overspill.cluster import Cluster

T = TypeVar("T")


class Output(StrEnum):
    """How a command prints what it found."""

    TEXT = "text"
    JSON = "json"


class ReportOutput(StrEnum):
    """The same, for a command that can also write a page."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


class CostsOutput(StrEnum):
    """The same, for costs."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    FOCUS = "focus"  # a CSV that tools for cloud bills read


class Grouping(StrEnum):
    """Whose costs; as the ledger's accounts begin."""

    SERVICE = "service"
    PROVIDER = "provider"
    KEY = "key"


class Since(StrEnum):
    """Of what time costs are recorded: a sliding day, and calendar windows in UTC."""

    LAST_24H = "24h"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Level(StrEnum):
    """How closely a simulation looks."""

    FLUID = "fluid"  # rates
    DISCRETE = "discrete"  # every request


ContextOption = Annotated[
    str, typer.Option("--context", help="Context of the kubeconfig. Default: its current one.")
]
KubeconfigOption = Annotated[
    str, typer.Option("--kubeconfig", help="Path of a kubeconfig. Default: as kubectl does.")
]
SystemOption = Annotated[
    str,
    typer.Option(
        "--system-namespace",
        envvar="OVERSPILL_SYSTEM_NAMESPACE",
        help="Namespace where Overspill is installed.",
    ),
]
ReleaseOption = Annotated[
    str, typer.Option("--release", help="Name under which Overspill is installed.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]

SYSTEM_NAMESPACE = "overspill-system"
RELEASE = "overspill"


@dataclass(frozen=True)
class Target:
    """Which cluster, and which installation in it."""

    context: str = ""
    kubeconfig: str = ""
    namespace: str = SYSTEM_NAMESPACE
    release: str = RELEASE

    @property
    def gateway(self) -> str:
        """Name of the gateway's Service and Deployment."""
        return f"{self.release}-gateway"

    @property
    def operator(self) -> str:
        """Name of the operator's Deployment."""
        return f"{self.release}-operator"

    @property
    def ledger(self) -> str:
        """Name of the ConfigMap in which the operator keeps what was spent."""
        return f"{self.release}-ledger"


def connected(target: Target, work: Callable[["Cluster"], Awaitable[T]]) -> T:
    """Run ``work`` with a connection to the cluster and return its result.

    :raises CommandError: when the cluster cannot be reached or refuses.
    """
    import asyncio

    from overspill.cli.errors import explain
    from overspill.cluster import Cluster, ClusterError

    async def run() -> T:
        async with Cluster.connect(target.context or None, target.kubeconfig or None) as cluster:
            return await work(cluster)

    try:
        return asyncio.run(run())
    except ClusterError as error:
        raise explain(error) from error
