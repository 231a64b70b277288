"""What it costs to serve a real hour of conversations: ours, and three other ways to do it.

    make bench-dollars
    python3 bench/dollars.py --traces FOLDER [--minutes 10]

Mooncake's conversation trace, on its own time, is streamed through the real gateway (all that
``overspill gateway --objects FOLDER`` runs: its HTTP server, choice, ledger, metrics) to stand-in
replicas and a stand-in provider (bench/dollars_world.py), over HTTP on a virtual clock
(bench/virtual.py). The operator's own policy sets the number of replicas every 5 s, from the
gateway's reports and from its metrics as a Prometheus would have scraped them every 15 s.

Stated once for all: a replica is the simulator's GPU-like engine with a batch sized for this trace
(``overspill/simulator/sizing.py``), boots for 120 s and costs $0.80 an hour from its order to the
end of its last answer, busy or not. The provider takes GPT-5.2's prices: $1.75 per million tokens
read, $0.175 where it had read the same beginning before (it never forgets one), $14 made. A request
attains the objective when its answer came whole, its first token within 2 s of when it was sent
and the others within 100 ms on average; one that failed does not. All requests sent count, and as
the objectives are of the 95th percentile, 95 % of them are enough.

* overspill: replicas by price (docs/adr/0018); what would wait for more than 1 s goes to the cloud.
* all-cloud: the same gateway, no replica.
* local-only: no cloud; our latency objective, then counts that never change, up to the first with
  which enough requests attain it.
* fallback-on-error: replicas by the latency objective, and the client asks the cloud when the
  gateway has refused it: as the chart comes, or with as little patience as the objective has.

The first five minutes are served and not counted: caches are empty then, and whoever scales has
what it happens to begin with. Dollars are per hour of the trace. Those for the cloud are what the
gateway told its clients of each request; all of them must sum up to its metrics and to the
provider's own invoice. Writes build/bench/dollars.json, and dollars.png where matplotlib is there.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import math
import platform
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import structlog

from dollars_report import ATTAINED, Row, bars, chart, table
from dollars_scaler import Autoscaler, scrape, total
from dollars_world import CHAT, HOST, Cloud, Cluster, Item, Tariff, load
from overspill.api import metrics
from overspill.api.keys import digest
from overspill.api.names import HEADER_COST
from overspill.api.provider import Price
from overspill.api.values import NANO
from overspill.autoscaler.offers import Offer
from overspill.autoscaler.signals import Rules
from overspill.gateway.plane import Plane
from overspill.gateway.secret import ANNOTATION_HOSTS
from overspill.gateway.settings import Settings
from overspill.gateway.standalone import NAMESPACE, standing
from overspill.ledger.prices import Rates
from overspill.simulator import parameters
from overspill.simulator.discrete import ITL, TTFT
from overspill.simulator.engine import Engine
from overspill.simulator.sizing import KV_ROOM, capacity, engine_for, initial_replicas
from virtual import VirtualLoop

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "dollars.json"
TRACE = "mooncake-conversation.jsonl"
GPU_HOUR, BOOT = 0.80, 120.0  # USD; seconds
PRICE = {"inputPerMTok": "1.75", "cachedInputPerMTok": "0.175", "outputPerMTok": "14"}
TARIFF = Tariff(1_750_000_000, 175_000_000, 14_000_000_000)
QUEUE_WAIT, HOLD = 1.0, 120.0  # seconds; the defaults of a service, and of the chart
MAX_REPLICAS = 50
UNCOUNTED = 300.0  # seconds at the beginning
KEY = "osk-bench"
# The end of a stream that is whole.
TAIL = 256  # bytes
COST = re.compile(rb": %b=([0-9.]+)\n\ndata: \[DONE\]" % HEADER_COST.encode())
SPACE, SERVICE, CLOUD_SERVICE = "bench", "chat", "cloud-only"
OURS = f"{SPACE}/{SERVICE}"


@dataclass(frozen=True)
class Way:
    """One way to serve.

    :param replicas: that never change; None: the operator's policy decides.
    :param spills: the gateway may send to the provider.
    :param by_price: the policy knows what both sides cost.
    :param falls_back: the client asks the cloud when it was refused.
    :param hold: seconds that the gateway lets a request wait.
    """

    policy: str
    setting: str
    replicas: int | None = None
    spills: bool = False
    by_price: bool = False
    falls_back: bool = False
    hold: float = HOLD


WAYS = (
    Way("overspill", "by price", spills=True, by_price=True),
    Way("overspill", "latency objective", spills=True),
    Way("all-cloud", "no replica", replicas=0),
    Way("local-only", "latency objective"),
    Way("fallback-on-error", "refused after 120 s", falls_back=True),
    Way("fallback-on-error", "refused after 1 s", falls_back=True, hold=QUEUE_WAIT),
)


@dataclass(frozen=True)
class Stage:
    """What all ways have in common."""

    items: Sequence[Item]
    engine: Engine
    initial: int  # replicas at the start of a way that scales
    least: int  # replicas that the mean load needs
    begin: float  # of what counts, in seconds
    seed: int

    @property
    def end(self) -> float:
        """When the last request is sent, in seconds."""
        return self.items[-1].request.time

    @property
    def hours(self) -> float:
        """How long what counts takes."""
        return (self.end - self.begin) / 3600


@dataclass
class Tally:
    """What clients saw of the requests that count.

    :param told: US dollars that the ends of all streams told, of those that do not count, too.
    """

    told: float = 0.0
    requests: int = 0
    failed: int = 0
    attained: int = 0
    spilled: int = 0
    dollars: float = 0.0  # that the ends of their streams told
    ttfts: list[float] = field(default_factory=list)  # seconds


# the gateway and its objects


@contextlib.asynccontextmanager
async def gateway(folder: Path, hold: float) -> AsyncIterator[Plane]:
    """Run the gateway of a folder to the end of the block."""
    stop = asyncio.Event()
    settings = Settings(NAMESPACE, port=0, internal_port=0, hold=hold, drain=1.0, instance="bench")
    async with standing(settings, folder, HOST, stop) as plane:
        serving = asyncio.create_task(plane.serve(stop, lame_duck=0.0))
        try:
            while not (plane.public.started and plane.internal.started):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield plane
        finally:
            stop.set()
            await serving


def write_objects(folder: Path, way: Way, slots: int, cloud: int) -> None:
    """Write a gateway's objects but for its replicas.

    :param slots: requests in a replica's batch.
    :param cloud: the provider's port.
    """

    def save(kind: str, name: str, **more: Any) -> None:
        metadata = {"name": name, "namespace": SPACE} | more.pop("metadata", {})
        path = folder / f"{kind}-{name}.json"
        path.write_text(json.dumps({"kind": kind, "metadata": metadata} | more))

    def service(name: str, *, spills: bool) -> None:
        providers = [{"name": "cloud", "model": "gpt-5.2"}] if spills else []
        spec = {
            "model": {"uri": "hf://bench/model"},
            "engine": {"runtime": "vllm", "batching": {"maxSequences": slots}},
            "scaling": {"minReplicas": 0, "maxReplicas": MAX_REPLICAS},
            "spillover": {"providers": providers},
        }
        save("InferenceService", name, spec=spec)

    service(SERVICE, spills=way.spills)
    service(CLOUD_SERVICE, spills=True)
    provider = {
        "type": "openai",
        "baseURL": f"http://{HOST}:{cloud}/v1",
        "insecure": True,
        "secretRef": {"name": "cloud"},
        "models": [{"name": "gpt-5.2", "price": PRICE}],
    }
    save("InferenceProvider", "cloud", spec=provider)
    hosts = {"annotations": {ANNOTATION_HOSTS: f"{HOST}:{cloud}"}}
    save("Secret", "cloud", metadata=hosts, stringData={"api-key": "sk-bench"})
    label = {"labels": {"overspill.dev/key": "true"}}
    save("Secret", "key", metadata=label, stringData={"sha256": digest(KEY), "tenant": SPACE})


# the clients


@dataclass
class Clients:
    """Send the trace's requests at their times."""

    session: aiohttp.ClientSession
    url: str
    models: tuple[str, ...]  # to be asked one after the other
    scaler: Autoscaler
    begin: float  # of what counts, in the loop's seconds
    tally: Tally = field(default_factory=Tally)

    async def run(self, items: Sequence[Item]) -> None:
        """Send all and wait for all answers."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for item in items:
                await asyncio.sleep(item.request.time - loop.time())
                group.create_task(self._one(item))

    async def _one(self, item: Item) -> None:
        """Send a request, and again elsewhere if it is refused."""
        began, counts = asyncio.get_running_loop().time(), item.request.time >= self.begin
        answer = None
        for model in self.models:
            answer = answer or await self._ask(item, model)
        self.tally.requests += counts
        self.tally.failed += counts and answer is None
        if answer is None:
            return
        cost, first, end = answer
        ttft, itl = first - began, (end - first) / max(1, item.request.output_tokens - 1)
        if not cost:
            self.scaler.answered(ttft, itl)
        self.tally.told += cost
        if counts:
            self.tally.dollars += cost
            self.tally.spilled += cost > 0
            self.tally.attained += ttft <= TTFT and itl <= ITL
            self.tally.ttfts.append(ttft)

    async def _ask(self, item: Item, model: str) -> tuple[float, float, float] | None:
        """Return the cost in US dollars, and when the first token and the end came."""
        loop = asyncio.get_running_loop()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        body = item.body(model)
        async with self.session.post(self.url + CHAT, data=body, headers=headers) as answer:
            if answer.status != 200:
                return None
            first, tail = 0.0, b""
            async for piece in answer.content.iter_any():
                if not first and b"data: " in piece:  # before it heartbeats may come
                    first = loop.time()
                tail = (tail + piece)[-TAIL:]
            told = COST.search(tail)
            return (float(told[1]), first, loop.time()) if told else None


# one way from its begin to its end


async def play(stage: Stage, way: Way) -> Row:
    """Serve the trace one way and return its row."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        cloud = Cloud(stage.items, TARIFF, stage.seed)
        await cloud.start()
        stack.push_async_callback(cloud.stop)
        write_objects(folder, way, stage.engine.slots, cloud.port)
        cluster = Cluster(stage.items, stage.engine, folder, OURS, BOOT, stage.end)
        stack.push_async_callback(cluster.close)
        await cluster.begin(stage.initial if way.replicas is None else way.replicas)
        plane = await stack.enter_async_context(gateway(folder, way.hold))
        scaler = Autoscaler(plane, cluster, OURS, rules(stage), offer() if way.by_price else None)
        if way.replicas is None:
            running = asyncio.create_task(scaler.run(stage.end))
            stack.callback(running.cancel)
        before = asyncio.create_task(later(stage.begin, lambda: cluster.seconds))
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        )
        await stack.enter_async_context(session)
        url = f"http://{HOST}:{plane.public.port}"
        clients = Clients(session, url, models(way), scaler, stage.begin)
        await clients.run(stage.items)
        counted = total(await scrape(plane), metrics.COST, destination="*")
        seconds = cluster.seconds - await before
        return row(stage, way, clients.tally, seconds, cluster.starts) | {
            "told_usd": round(clients.tally.told, 6),
            "ledger_usd": round(counted, 6),
            "invoice_usd": round(cloud.invoice / NANO, 6),
        }


async def later(seconds: float, look: Callable[[], float]) -> float:
    """Return what is seen then, in the loop's seconds."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())
    return look()


def models(way: Way) -> tuple[str, ...]:
    """Return whom the client asks."""
    if way.replicas == 0:
        return (CLOUD_SERVICE,)
    return (SERVICE, CLOUD_SERVICE) if way.falls_back else (SERVICE,)


def rules(stage: Stage) -> Rules:
    """Return what the service asks for, with the operator's default windows."""
    return Rules(1, MAX_REPLICAS, stage.engine.slots, TTFT, ITL, QUEUE_WAIT, idle_after=600.0)


def offer() -> Offer:
    """Return what both sides ask."""
    return Offer(GPU_HOUR, (Rates.of(Price.model_validate(PRICE)),), BOOT)


def row(stage: Stage, way: Way, tally: Tally, seconds: float, starts: int) -> Row:
    """Return one line of the result.

    :param seconds: of replicas, to pay.
    :param starts: of replicas, ever.
    """
    cloud, gpu = tally.dollars / stage.hours, seconds / 3600 * GPU_HOUR / stage.hours
    return {
        "policy": way.policy,
        "setting": way.setting,
        "requests": tally.requests,
        "failed": tally.failed,
        "objective_attained": round(tally.attained / tally.requests, 5),
        "cloud_usd": round(cloud, 4),
        "gpu_usd": round(gpu, 4),
        "total_usd": round(cloud + gpu, 4),
        "spilled_requests": tally.spilled,
        "replicas_mean": round(seconds / 3600 / stage.hours, 3),
        "starts": starts,
        "ttft_p95_s": round(p95(tally.ttfts), 3),
    }


def p95(values: list[float]) -> float:
    """Return the 95th percentile; infinite without any."""
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else math.inf


def run(stage: Stage, way: Way) -> Row:
    """Play one way on a clock of its own."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(play(stage, way))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def rows(stage: Stage) -> Iterator[Row]:
    """Yield all rows; of counts that never change, up to the first that attains the objective."""
    for way in WAYS:
        yield run(stage, way)
    for count in range(stage.least, MAX_REPLICAS):
        found = run(stage, Way("local-only", f"{count} replicas", replicas=count))
        yield found
        if found["objective_attained"] >= ATTAINED:
            return


def stage_of(path: Path, seconds: float, begin: float, kv_room: float, seed: int) -> Stage:
    """Read the trace and size an engine for all of it, whatever part is served.

    :param seconds: of the trace that are served.
    :param begin: of what counts, in seconds.
    :param kv_room: of a replica's KV cache, in what a full batch takes on average.
    """
    whole = load(path, seed)
    requests = [item.request for item in whole]
    sized = engine_for(parameters.load("gpu").model, requests, ITL)
    engine = replace(sized, kv_tokens=sized.kv_tokens * kv_room / KV_ROOM)
    rate = capacity(engine, requests)
    least = math.ceil(len(requests) / requests[-1].time / rate)
    items = [item for item in whole if item.request.time < seconds]
    print(
        f"{len(items)} requests in {items[-1].request.time / 60:.0f} min; a replica: "
        f"{engine.slots} slots, {engine.kv_tokens:,.0f} tokens of KV cache, {rate:.2f} requests/s"
    )
    return Stage(items, engine, initial_replicas(requests, rate), least, begin, seed)


def main() -> None:
    """Serve the trace every way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help=f"folder of {TRACE}")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of the trace, from 0")
    parser.add_argument(
        "--kv-room", type=float, default=KV_ROOM, help="KV cache, in what a full batch takes"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    path = options.traces / TRACE
    if not path.exists():
        sys.exit(f"{path} is not there: give its folder with --traces")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), list[Row]()
    stage = stage_of(path, options.minutes * 60, UNCOUNTED, options.kv_room, options.seed)
    for r in rows(stage):
        found.append(r)
        print(f"{r['policy']}, {r['setting']}: {time.monotonic() - started:.0f} s", flush=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    chart(found, RESULT.with_suffix(".png"))
    print(table(found))
    for met, text in bars(found):
        print("met   " if met else "MISSED", text)
    print(f"{len(found)} rows, {time.monotonic() - started:.0f} s, {platform.machine()}")


if __name__ == "__main__":
    main()
