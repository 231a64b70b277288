"""`overspill-engine drain`: drains for an engine that cannot do it by itself.

Beside such an engine in its pod, this answers `GET /drain` when the engine has no request left or
when its time is up. The engine container's preStop hook asks for it: the kubelet sends SIGTERM
only when it is answered. First the pod leaves its Service, which takes `delay` seconds.
https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/

It runs as a native sidecar, so it ends after the engine. Whatever happens it answers: an engine
that says nothing is waited for until the time is up. The kubelet has no credential to show, so
anyone who reaches the port may ask; each gets a wait of their own, and ends nobody else's.
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

import asyncio
import contextlib
import signal
from dataclasses import dataclass

import structlog

from overspill.engine.drain import INTERVAL, Drain
from overspill.engine.load import Gauges

log = structlog.get_logger(__name__)

MAX_HEAD = 16 << 10  # bytes of a request
HEAD_SECONDS = 10.0
MAX_CONNECTIONS = 32


@dataclass
class Sidecar:
    """One engine's drain; `delay` and `seconds` as in its options."""

    gauges: Gauges
    delay: float
    seconds: float
    _connections: int = 0

    async def serve(self, port: int) -> None:
        """Answer on `port` until SIGTERM."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # Any address: the kubelet asks from the node.
        server = await asyncio.start_server(self._answer, "", port, limit=MAX_HEAD)
        log.info("ready to drain", port=port, metrics=self.gauges.url)
        await stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                status = await self._status(reader)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except OSError:
            pass  # who asked has left; the drain goes on
        finally:
            self._connections -= 1
            writer.close()

    async def _status(self, reader: asyncio.StreamReader) -> str:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return "400 Bad Request"
        match head.split(maxsplit=2)[:2]:
            case [b"GET", b"/drain"]:
                await self._wait()
                return "200 OK"
            case [b"GET", b"/health"]:
                return "200 OK"
        return "404 Not Found"

    async def _wait(self) -> None:
        """Return when the engine has no request left, or when the time is up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        state = Drain(deadline=began + self.delay + self.seconds)
        log.info("draining", seconds=self.seconds)
        await asyncio.sleep(self.delay)
        active: int | None = None
        while not state.finished(loop.time()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(state.deadline):
                    active = await asyncio.to_thread(self.gauges.active)
                    state = state.look(active)
                    await asyncio.sleep(INTERVAL)
        log.info("drained", seconds=round(loop.time() - began, 1), left=active)
