"""The gateway's program without Kubernetes: the servers, and the folder that feeds them."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from overspill.gateway.folder import Folder
from overspill.gateway.plane import assemble, run_loop, stop_signal
from overspill.gateway.settings import Settings, from_env
from overspill.gateway.state import State

NAMESPACE = "overspill-system"  # nothing is looked up in it


async def main(settings: Settings, folder: Path, host: str) -> None:
    """Serve what the folder says until SIGTERM.

    :raises InvalidFile: when it cannot be read at the start.
    """
    stop = stop_signal()
    state = State(asyncio.get_running_loop().time, settings.queue_bound)
    async with assemble(settings, state, _nobody, lambda: True, host) as plane:
        objects = Folder(folder, state, plane.demand.wake)
        objects.load()
        following = asyncio.create_task(objects.follow())
        following.add_done_callback(lambda _: stop.set())
        try:
            await plane.serve(stop, lame_duck=0.0)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


async def _nobody(token: str) -> str:
    """Nobody reads ``/demand`` here: there is no operator, and no API server to ask."""
    return ""


def run(env: Mapping[str, str], folder: Path, host: str, port: int, internal_port: int) -> None:
    """Serve on two ports of one address.

    :raises InvalidFile: when the folder's objects are wrong at the start.
    :raises InvalidSetting: when a variable is.
    """
    settings = replace(from_env(env, NAMESPACE), port=port, internal_port=internal_port)
    run_loop(settings.log_level, main(settings, folder, host))
