"""What goes wrong, by a seed: in each of three lanes one fault after the other, with pauses.

Lanes overlap, so that an engine, a cloud and a folder may be wrong at the same time.
"""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from soak_gateways import Gateway
from soak_upstreams import Upstream

ENGINE = ["down", "hang", "slow", "cut", "error event", "silent", "500", "503"]
CLOUD = ["401", "429", "500", "529", "502", "hang", "cut", "error event", "silent"]
FOLDER = ["broken file", "unlisted engine", "changed objects", "record not writable"]
FOLLOWED = 3.0  # seconds until a gateway has read its folder again
RECORD_RESTS = 8.0  # seconds until it has written its record again
RAISE = 2 * 10**6  # nano-dollars more for the narrow cloud: some ten requests


class Faults:
    """Runs the lanes.

    :param pause: seconds between two faults of a lane, on average; each lasts about as long.
    """

    def __init__(
        self,
        gateways: list[Gateway],
        engines: list[Upstream],
        clouds: list[Upstream],
        seed: str,
        pause: float,
    ) -> None:
        self.gateways, self.engines, self.clouds = gateways, engines, clouds
        self.rng, self.pause = random.Random(f"faults {seed}"), pause
        self.seen: Counter[str] = Counter()
        self._listed = list(engines)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let things go wrong until the end of the block, then mend all."""
        stop = asyncio.Event()
        lanes = [
            self._lane(stop, "engine", ENGINE, self._engine),
            self._lane(stop, "cloud", CLOUD, self._cloud),
            self._lane(stop, "folder", FOLDER, self._folder),
        ]
        work = asyncio.gather(*lanes)
        try:
            yield
        finally:
            stop.set()
            await work

    async def _lane(
        self,
        stop: asyncio.Event,
        name: str,
        kinds: list[str],
        fault: Callable[[str], AbstractAsyncContextManager[None]],
    ) -> None:
        """One fault after the other: all kinds in a random order, then again in another."""
        order: list[str] = []
        while not await _stopped(stop, self.rng.uniform(0.5, 1.5) * self.pause):
            order = order or self.rng.sample(kinds, len(kinds))
            kind = order.pop()
            self.seen[f"{name} {kind}"] += 1
            async with fault(kind):
                await _stopped(stop, self.rng.uniform(0.5, 1.5) * self.pause)

    @contextlib.asynccontextmanager
    async def _engine(self, kind: str) -> AsyncIterator[None]:
        """One engine, now and then all; who is down is soon not listed any more."""
        many = len(self.engines) if self.rng.random() < 0.1 else 1
        wrong = self.rng.sample(self.engines, many)
        for engine in wrong:
            await engine.goes_wrong(kind)
        if kind == "down":
            self._list([engine for engine in self._listed if engine not in wrong])
        yield
        for engine in wrong:
            await engine.recovers()
        if kind == "down":
            self._list([*self._listed, *wrong])

    @contextlib.asynccontextmanager
    async def _cloud(self, kind: str) -> AsyncIterator[None]:
        """One cloud or two of three."""
        wrong = self.rng.sample(self.clouds, self.rng.choice([1, 1, 2]))
        for cloud in wrong:
            await cloud.goes_wrong(kind)
        yield
        for cloud in wrong:
            await cloud.recovers()

    @contextlib.asynccontextmanager
    async def _folder(self, kind: str) -> AsyncIterator[None]:
        gateway = self.rng.choice(self.gateways)
        if kind == "broken file":
            gateway.broken_file(True)
            yield
            gateway.broken_file(False)
        elif kind == "unlisted engine":
            out = self.rng.choice(self.engines)
            self._list([engine for engine in self._listed if engine is not out])
            yield
            self._list([*self._listed, out])
        elif kind == "changed objects":  # and with them more money for the narrow cloud
            gateway.narrow += RAISE
            for cloud in self.clouds:
                gateway.write_cloud(cloud)
            gateway.write_service()
            yield
        else:
            gateway.money_since = math.inf
            gateway.unwritable(True)
            yield
            gateway.unwritable(False)
            asyncio.get_running_loop().call_later(RECORD_RESTS, _paid_again, gateway)

    def _list(self, engines: list[Upstream]) -> None:
        """Say which engines are ready; each counts as listed once every gateway has read so."""
        now = asyncio.get_running_loop().time()
        for engine in self.engines:
            if engine not in engines:
                engine.listed_since = math.inf
            elif engine not in self._listed:
                engine.listed_since = now + FOLLOWED
        self._listed = [engine for engine in self.engines if engine in engines]
        for gateway in self.gateways:
            gateway.write_endpoints(self._listed)


def _paid_again(gateway: Gateway) -> None:
    gateway.money_since = asyncio.get_running_loop().time()


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; whether the end came meanwhile."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
