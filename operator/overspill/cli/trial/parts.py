"""The parts that run: engine and stand-in as processes of their own, the gateway in this one.

Both processes end when their standard input is closed, so they never outlive us, also when we are
killed. All listen on 127.0.0.1 alone.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import xllamacpp  # noqa: F401 - of the servers; where it is not installed that is told before they run

from overspill.cli.errors import CommandError
from overspill.cli.trial import objects
from overspill.engine.llamacpp import Setting, command, settings
from overspill.engine.options import Options
from overspill.gateway.plane import Plane
from overspill.gateway.settings import from_env
from overspill.gateway.standalone import NAMESPACE, standing

HOST = "127.0.0.1"
START_SECONDS = 120.0  # for a model to be loaded
STOP_SECONDS = 5.0
HOLD_SECONDS = 600.0  # that a question may wait for the engine: a busy machine is slow
DRAIN_SECONDS = 1.0  # for requests that are under way at the end
CONTEXT = 1024  # tokens of one request


@contextlib.asynccontextmanager
async def server(
    model: Path, name: str, sequences: int, log: Path, **more: Setting
) -> AsyncIterator[int]:
    """Run llama.cpp's server with one thread until the end of the block; give its port.

    :param name: under which it serves the model.
    :param sequences: that it computes at once.
    :param log: what it says.
    :param more: settings of llama.cpp.
    :raises CommandError: when it does not start.
    """
    port = _free_port()
    options = Options(model, name, port, CONTEXT, sequences, cpu_threads=1)
    chosen = settings(options, model, 0) | {"hostnames": [HOST]} | more
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command(chosen, {}, 1),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "GOMP_SPINCOUNT": "1000"},  # as in the engine's image
            start_new_session=True,  # Ctrl-C reaches it through us
        )
    try:
        await _answers(process, port, log)
        yield port
    finally:
        await _end(process)


async def _answers(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Wait until a server has loaded its model.

    :raises CommandError: when it ends instead, or takes too long.
    """
    ended = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
            while not ended.done():
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://{HOST}:{port}/health") as answer:
                        if answer.status == 200:
                            return
                await asyncio.wait([ended], timeout=0.1)
    except TimeoutError:
        raise CommandError(f"the model was not loaded within {START_SECONDS:.0f} s") from None
    finally:
        ended.cancel()
    raise CommandError(f"llama.cpp did not start: {_last_line(log) or 'it said nothing'}")


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a server; nothing that it holds would need saving."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Plane]:
    """Run the gateway of a folder until the end of the block."""
    stop = asyncio.Event()
    given = replace(
        from_env({}, NAMESPACE), port=0, internal_port=0, hold=HOLD_SECONDS, drain=DRAIN_SECONDS
    )
    async with standing(given, folder, HOST, stop) as plane:
        serving = asyncio.create_task(plane.serve(stop, lame_duck=0.0))
        try:
            await _listens(plane, serving)
            yield plane
        finally:
            stop.set()
            await serving


async def _listens(plane: Plane, serving: asyncio.Task[None]) -> None:
    while not (serving.done() or (plane.public.started and plane.internal.started)):  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def everything(folder: Path, logs: Path, model: Path) -> AsyncIterator[tuple[Plane, str]]:
    """Run engine, stand-in and gateway until the end of the block; give gateway and client's key.

    :param folder: for the gateway's objects.
    :param logs: folder for what the servers say.
    """
    cloud_key = objects.new_cloud_key()
    async with contextlib.AsyncExitStack() as stack:
        engine, cloud = [
            await stack.enter_async_context(part)
            for part in (
                server(model, objects.SERVICE, objects.SEQUENCES, logs / "engine.log"),
                server(model, objects.CLOUD_MODEL, 8, logs / "cloud.log", api_keys=[cloud_key]),
            )
        ]
        key = objects.write(folder, engine, cloud, cloud_key)
        yield await stack.enter_async_context(gateway(folder)), key
