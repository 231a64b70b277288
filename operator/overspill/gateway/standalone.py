"""The gateway's program without Kubernetes: the servers, the folder that feeds them, the money."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from overspill.gateway.folder import Folder
from overspill.gateway.plane import Plane, assemble, run_loop, stop_signal
from overspill.gateway.settings import Settings, from_env
from overspill.gateway.state import State
from overspill.gateway.treasurer import Treasurer

NAMESPACE = "overspill-system"  # nothing is looked up in it
RECORD_SECONDS = 5.0  # for the last record to be written


async def main(settings: Settings, folder: Path, host: str) -> None:
    """Serve what the folder says until SIGTERM.

    :raises InvalidFile: when it cannot be read at the start.
    """
    stop = stop_signal()
    async with standing(settings, folder, host, stop) as plane:
        await plane.serve(stop, lame_duck=0.0)


@contextlib.asynccontextmanager
async def standing(
    settings: Settings, folder: Path, host: str, stop: asyncio.Event
) -> AsyncIterator[Plane]:
    """Build a gateway around a folder, which is followed until the end of the block.

    :param stop: set when that fails.
    :raises InvalidFile: when it cannot be read at the start.
    """
    state = State(asyncio.get_running_loop().time, settings.queue_bound)
    async with assemble(settings, state, _nobody, lambda: True, host) as plane:
        objects = Folder(folder, state, plane.demand.wake)
        objects.load()
        async with _beside(objects.follow(), stop), keeping(folder, plane, stop):
            yield plane


@contextlib.asynccontextmanager
async def keeping(folder: Path, plane: Plane, stop: asyncio.Event) -> AsyncIterator[None]:
    """Let what has a budget spill, within it; at the end what is unspent goes back to the record.

    :param folder: where the record is.
    """
    treasurer = Treasurer(folder, plane.funds, plane.demand)
    plane.metrics.registry.register(treasurer)
    async with _beside(treasurer.run(), stop) as giving:
        try:
            yield
        finally:
            plane.demand.stop()
            await asyncio.wait([giving], timeout=RECORD_SECONDS)


@contextlib.asynccontextmanager
async def _beside(
    work: Coroutine[Any, Any, None], stop: asyncio.Event
) -> AsyncIterator[asyncio.Task[None]]:
    """Run something as long as the block; when it ends by a fault, the program stops."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stop.set())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


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
