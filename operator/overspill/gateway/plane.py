"""The running parts of a gateway: two servers in one event loop, whoever feeds the state.

At SIGTERM readiness fails first, and answers end their connections; then the server stops
listening, and requests get the drain time to end. The second server goes last.
"""

import asyncio
import ctypes
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import structlog
import uvloop

from overspill import logs
from overspill.gateway.app import Gateway
from overspill.gateway.choice import Chooser
from overspill.gateway.decisions import Decisions, why
from overspill.gateway.demand import Demand
from overspill.gateway.dispatch import Dispatcher
from overspill.gateway.funds import Funds
from overspill.gateway.internal import Internal, Review, TokenCheck
from overspill.gateway.memory import PART, Memory
from overspill.gateway.metrics import Metrics
from overspill.gateway.reports import Reports
from overspill.gateway.server import Server, allow_files, make_server
from overspill.gateway.settings import Settings
from overspill.gateway.state import State
from overspill.gateway.upstream import Pool
from overspill.providers.client import ProviderClient
from overspill.providers.http import Http

log = structlog.get_logger(__name__)

# Seconds in which a stopping gateway still takes what load balancers send to it.
LAME_DUCK_SECONDS = 3.0
INTERNAL_DRAIN_SECONDS = 1.0
# Bytes. Free memory that is kept for the next requests, of the 1 GiB that the chart gives; and the
# size from which a piece is one of its own, which goes back to the kernel at once.
KEEP_FREE, OWN_PIECE = 64 << 20, 4 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# Objects that requests make before the collector looks at them; by itself after 700, when those of
# a dozen requests are still in use, so that it walks them in vain and calls them old.
YOUNG_OBJECTS = 10_000


@dataclass
class Plane:
    """The parts of a running gateway."""

    settings: Settings
    state: State
    metrics: Metrics
    funds: Funds
    gateway: Gateway
    demand: Demand
    reports: Reports
    public: Server
    internal: Server
    stopping: bool = False

    async def serve(self, stop: asyncio.Event, lame_duck: float = LAME_DUCK_SECONDS) -> None:
        """Serve until ``stop`` is set and all requests have ended, or the drain time has.

        :param lame_duck: seconds between failing readiness and closing the door.
        """
        async with asyncio.TaskGroup() as group:
            public = group.create_task(self.public.serve())
            group.create_task(self.internal.serve())
            asking = group.create_task(self.reports.run())
            await stop.wait()
            log.info("stopping", drain_seconds=self.settings.drain)
            self.stopping = self.gateway.closing = True
            await asyncio.sleep(lame_duck)
            self.public.should_exit = True
            await asyncio.wait([public])
            await _settle(self.public)
            asking.cancel()
            self.demand.stop()
            self.internal.should_exit = True


@asynccontextmanager
async def assemble(
    settings: Settings,
    state: State,
    review: Review,
    synced: Callable[[], bool],
    host: str = "0.0.0.0",  # noqa: S104 - a pod's only address is not known before
) -> AsyncIterator[Plane]:
    """Build a gateway around a state; closed at the end of the ``async with`` block.

    :param review: returns the user name that a token proves, or "".
    :param synced: whether the state is complete.
    """
    pool, client = Pool(asyncio.get_running_loop()), ProviderClient(Http(settings.proxy))
    memory = Memory(settings.memory // PART)
    metrics, funds = Metrics(state, memory), Funds(state.clock, lambda: demand.wake())
    demand = Demand(state, settings.instance, funds)
    decisions = Decisions()
    chooser = Chooser(
        state, metrics, hold_limit=settings.hold, on_hold=demand.wake, decisions=decisions
    )
    dispatcher = Dispatcher(chooser, metrics, pool, client, funds, on_hold=demand.wake)
    gateway = Gateway(state, metrics, dispatcher, memory, max_body=settings.max_body)
    check = TokenCheck(review, settings.operator_user, state.clock)

    def ready() -> bool:
        return synced() and not gateway.closing

    internal = Internal(metrics, demand, funds, check, ready, partial(why, decisions, state))
    try:
        yield Plane(
            settings,
            state,
            metrics,
            funds,
            gateway,
            demand,
            Reports(state, pool),
            make_server(gateway, host, settings.port, settings.drain),
            make_server(internal, host, settings.internal_port, INTERNAL_DRAIN_SECONDS),
        )
    finally:
        pool.close()
        await client.close()


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _settle(server: Server) -> None:
    """Let tasks that the end of the drain time cancelled say their last word."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=2.0)


def run_loop(log_level: str, program: Coroutine[None, None, None]) -> None:
    """Run a gateway's program to its end, after what each of them needs first.

    What the imports made, some 70,000 objects, is taken out of the collector's sight: a full
    collection walks all that it sees at once, and 35 ms and more of it are a pause in every
    stream (https://docs.python.org/3/library/gc.html#gc.freeze).
    """
    logs.configure(log_level)
    allow_files()
    keep_free_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    uvloop.run(program)


def keep_free_memory() -> None:
    """Let glibc keep what requests free, up to a bound; other C libraries have no such setting.

    By itself it gives back what is free beyond twice the largest piece that it has seen: with
    bodies of 220 KB nearly all of it after every request, and the next one takes a page fault per
    4 KiB of each copy (a third to a half of its CPU). https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, OWN_PIECE)
        mallopt(M_TRIM_THRESHOLD, KEEP_FREE)
