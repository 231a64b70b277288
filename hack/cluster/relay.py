"""A CONNECT proxy for pods of the local cluster that leads to one host and port, no other.

python3 relay.py ADDRESS:PORT HOST:PORT

It listens on an address that only this machine and its pods reach, sees TLS from outside only, and
is bounded: connections at a time, the size of a request's head, and the time for each step. Names
are resolved here, since pods resolve none outside.
"""

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass

MAX_TUNNELS = 64
MAX_HEAD = 8192  # bytes
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 300.0  # without a byte of either side
PIECE = 65_536  # bytes

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Refused(Exception):
    """What the client is told instead of being connected: a status line's status and reason."""


def asked_for(head: bytes) -> str:
    """The host:port of a CONNECT request's head; Refused for any other request."""
    line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(line) != 3 or line[0] != "CONNECT" or not line[2].startswith("HTTP/1."):
        raise Refused("405 Method Not Allowed")
    return line[1]


@dataclass
class Relay:
    """One relay; `target` is host:port."""

    target: str
    tunnels: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.tunnels += 1
        try:
            await self.tunnel(reader, writer)
        except Refused as refused:
            writer.write(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\n\r\n".encode())
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # one of the two sides has gone
        finally:
            self.tunnels -= 1
            with contextlib.suppress(OSError, TimeoutError):
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 1)

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect the two sides; Refused when that is not allowed or not possible."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        if self.tunnels > MAX_TUNNELS:
            raise Refused("503 Service Unavailable")
        if asked_for(head) != self.target:
            raise Refused("403 Forbidden")
        there = await self.connect()
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await copy_both((reader, writer), there)
        finally:
            there[1].close()

    async def connect(self) -> Streams:
        """A connection to the target; Refused when there is none."""
        host, _, port = self.target.rpartition(":")
        try:
            opening = asyncio.open_connection(host, int(port))
            return await asyncio.wait_for(opening, CONNECT_SECONDS)
        except (OSError, TimeoutError):
            raise Refused("502 Bad Gateway") from None


async def copy_both(one: Streams, other: Streams) -> None:
    """Copy both ways until one side ends or is silent for too long."""
    ways = (copy(one[0], other[1]), copy(other[0], one[1]))
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one way; a writer that is slow holds the reader."""
    while data := await asyncio.wait_for(reader.read(PIECE), IDLE_SECONDS):
        writer.write(data)
        await asyncio.wait_for(writer.drain(), IDLE_SECONDS)


async def start(address: str, port: int, target: str) -> asyncio.Server:
    """Listen."""
    return await asyncio.start_server(Relay(target).serve, address, port, limit=MAX_HEAD)


async def main(listen: str, target: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    address, _, port = listen.rpartition(":")
    async with await start(address, int(port), target):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
