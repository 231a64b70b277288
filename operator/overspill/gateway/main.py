"""The gateway's program in a cluster: the servers, and the watches that feed them."""

import asyncio
import os
import sys

from overspill.api.names import GATEWAY_AUDIENCE
from overspill.cluster.client import Cluster
from overspill.cluster.errors import ClusterError
from overspill.gateway.internal import NotReviewed
from overspill.gateway.plane import assemble, run_loop, stop_signal
from overspill.gateway.settings import InvalidSetting, Settings, from_env
from overspill.gateway.state import State
from overspill.gateway.watch import Feeder


async def main(settings: Settings) -> None:
    """Serve what the cluster says until SIGTERM.

    :raises WatchEnded: when a watch stopped for a fault of ours; a restart heals it.
    """
    stop = stop_signal()
    state = State(asyncio.get_running_loop().time, settings.queue_bound)
    async with Cluster.connect() as cluster:

        async def review(token: str) -> str:
            try:
                return await cluster.review_token(token, GATEWAY_AUDIENCE)
            except ClusterError as error:
                raise NotReviewed(str(error)) from error

        feeder = Feeder(cluster, state, settings)
        async with assemble(settings, state, review, lambda: feeder.synced) as plane:
            feeder.start(on_provider=plane.demand.wake, on_failure=stop.set)
            try:
                await plane.serve(stop)
            finally:
                await feeder.close()
        if feeder.failed:
            raise WatchEnded("a watch ended; see the log above")


class WatchEnded(Exception):
    """The state would not be kept up to date any more."""


def run() -> None:
    """Entry point ``overspill-gateway``."""
    try:
        settings = from_env(os.environ)
        run_loop(settings.log_level, main(settings))
    except (InvalidSetting, ClusterError, WatchEnded) as error:
        sys.exit(str(error))
