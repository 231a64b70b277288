"""Two real gateways at 70 % of their engines' capacity while everything around them goes wrong.

``OVERSPILL_SOAK`` is the length in seconds, ``OVERSPILL_SEED`` repeats a run's load and faults (not
its timing). What holds, also in the short form of `make test`:

* a request that fails had no other way to succeed, by the book of the upstreams (``soak_load.py``);
* no token is missing or came twice, no answer ends early without an error;
* each ledger says what the clouds' book says: what a whole answer used, nothing for a refusal, the
  worst case for all else; the bill is never above it, nor above the budget that is nearly spent;
* at the end no request, connection or memory is left over, and no piece of a key in a log.
"""

import asyncio
import os
import secrets
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from soak_faults import CLOUD, ENGINE, FOLDER, Faults
from soak_gateways import NAMESPACE, NARROW, SERVICE, Gateway, new_secret
from soak_load import Judge, Load
from soak_upstreams import Book, Upstream

SECONDS = float(os.environ.get("OVERSPILL_SOAK", "25"))
SEED = os.environ.get("OVERSPILL_SEED") or secrets.token_hex(4)
FULL = SECONDS >= 600
PAUSE = 4.0 if FULL else 1.5  # seconds between two faults of a lane
WARM = 0.25  # of the time
SAMPLE_SECONDS = 2.0
QUIET_SECONDS = 40.0  # for kept connections to end
GROWTH = 2 * 2**20  # bytes of resident memory, from warm to the end
HANDLES = 8  # more than at the start
REPORT = Path(__file__).resolve().parents[2] / "build/reports/soak.txt"


@dataclass
class Gauge:
    """What a process takes over time."""

    gateway: Gateway
    idle: int = 0  # handles before the load
    memory: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def sample(self) -> None:
        self.memory.append(self.gateway.resident())
        self.handles.append(self.gateway.handles())

    @property
    def warm(self) -> list[int]:
        return self.memory[int(len(self.memory) * WARM) :]

    @property
    def growth(self) -> float:
        """Bytes from warm to the end, by the slope through all samples between."""
        if len(self.warm) < 2:
            return 0.0
        slope, _ = statistics.linear_regression(range(len(self.warm)), self.warm)
        return slope * len(self.warm)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[list[Gateway], Judge]]:
    """Three engines, three clouds, two gateways."""
    book = Book()
    async with AsyncExitStack() as stack:
        engines = [Upstream(f"engine-{n}", book, SEED, bills=False) for n in range(3)]
        keys = {name: [new_secret(), new_secret()] for name in (NARROW, "wide", "last")}
        clouds = [Upstream(name, book, SEED, keys[name], bills=True) for name in keys]
        for upstream in (*engines, *clouds):
            await upstream.start()
            stack.push_async_callback(upstream.stop)
        gateways = [Gateway(number, folder, engines, clouds) for number in range(2)]
        for gateway in gateways:
            gateway.write_all(engines)
            await gateway.start()
            stack.callback(gateway.kill)
        yield gateways, Judge(book, engines, clouds)


async def watched(gauges: list[Gauge]) -> None:
    """Look at the processes, for ever."""
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        for gauge in gauges:
            gauge.sample()


async def quiet(gateways: list[Gateway]) -> None:
    """Wait until nothing is under way any more."""
    async with asyncio.timeout(60):
        while sum([await gateway.busy() for gateway in gateways]):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.2)


async def test_what_fails_had_no_other_way_and_every_dollar_is_in_the_ledger(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as (gateways, judge):
        load = Load(gateways, judge, SEED)
        faults = Faults(gateways, judge.engines, judge.clouds, SEED, PAUSE)
        gauges = [Gauge(gateway, gateway.handles()) for gateway in gateways]
        for gateway in gateways if FULL else ():
            await gateway.fill()
        watching = [asyncio.create_task(w) for w in (watched(gauges), judge.pulse.run())]
        async with faults.running():
            await load.run(SECONDS)
        for task in watching:
            task.cancel()
        await quiet(gateways)
        costs = [await gateway.cost() for gateway in gateways]
        if FULL:
            await asyncio.sleep(QUIET_SECONDS)
        left = [gauge.gateway.handles() - gauge.idle for gauge in gauges]
        stops = [await gateway.stop() for gateway in gateways]
        lines = report(load, faults, gauges, left)
        assert judge.defects == [], f"{len(judge.defects)} of {judge.ends}"
        steady = judge.pulse.late_at < 0
        assert load.unsent == 0 or not steady
        assert load.number >= 0.9 * load.rate * SECONDS or not steady
        judged(judge, gateways, costs)
        assert stops == [0, 0]
        assert [gateway.leaks() for gateway in gateways] == [[], []]
        if FULL:
            assert set(faults.seen) == kinds()
            assert max(gauge.growth for gauge in gauges) <= GROWTH, lines
            assert max(left) <= HANDLES


def kinds() -> set[str]:
    """All that can go wrong."""
    lanes = {"engine": ENGINE, "cloud": CLOUD, "folder": FOLDER}
    return {f"{lane} {kind}" for lane, found in lanes.items() for kind in found}


def judged(judge: Judge, gateways: list[Gateway], costs: list[float]) -> None:
    """Compare the ledgers with what the clouds' book says, to the nano-dollar."""
    for gateway, cost in zip(gateways, costs, strict=True):
        owed = {account: nano for (n, account), nano in judge.owed.items() if n == gateway.number}
        service = owed[SERVICE]
        charged = gateway.charged(SERVICE)
        assert charged >= service if judge.pulse.late_at > 0 else charged == service, "drift"
        assert cost == pytest.approx(charged / 1e9, abs=1e-9), "metrics and ledger agree"
        narrow = f"provider/{NAMESPACE}/{NARROW}"
        assert owed.get(narrow, 0) <= gateway.charged(narrow) <= gateway.narrow


def report(load: Load, faults: Faults, gauges: list[Gauge], left: list[int]) -> str:
    """Write down what was seen."""
    judge = load.judge
    owed = sum(nano for (_, account), nano in judge.owed.items() if account == SERVICE)
    charged = sum(gauge.gateway.charged(SERVICE) for gauge in gauges)
    memory = ", ".join(
        f"{statistics.mean(g.warm or [0]) / 2**20:.1f} MiB ({g.growth / 2**20:+.2f})"
        for g in gauges
    )
    lines = [
        f"seed {SEED}, {SECONDS:.0f} s, {load.rate:.0f} requests/s, {load.number} requests",
        f"ends: {dict(judge.ends)}",
        f"failed without another way: {dict(judge.excused)}; with one: {len(judge.defects)}",
        f"faults: {sum(faults.seen.values())} of {len(faults.seen)} kinds",
        f"clouds billed ${judge.billed / 1e9:.6f}, ${judge.billed_whole / 1e9:.6f} of it for whole "
        f"answers; the ledgers must say ${owed / 1e9:.6f}, and say ${charged / 1e9:.6f}",
        f"this machine was late by {judge.pulse.latest:.1f} s at most",
        f"resident memory when warm, and growth since: {memory}",
        f"handles at most {[max(g.handles, default=0) for g in gauges]}, left over {left}",
    ]
    text = "\n".join(lines)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text + "\n")
    print(text)
    return text
