"""What a gateway costs: ours, vllm-router, sglang-router and LiteLLM before the same four replicas.

    make bench-gateway
    make bench-gateway BENCH="--rounds 1 --seconds 2"   a short trial

Each runs alone on one core; its replicas and clients are on another (bench/gateway_load.py). Rounds
are interleaved: every target in turn, then all of it again. Ours runs with a key, admission,
metrics, logs, cost counting and prefix routing; the peers as they come, but vllm-router, which
everything is compared with, in turns. Writes build/bench/gateway.json, a row per round.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway_bars import OURS, RIVAL, Row, bars, table
from gateway_load import GATEWAY_CORE, Load, Upstream, awake, on_core, replicas, send, used
from programs import ROOT, Maker, litellm, ours, running, rust_router

RESULT = ROOT / "build" / "bench" / "gateway.json"
BODIES, CONNECTIONS = (150, 10_000, 220_000), (32, 256)
STREAM_BODY = 150
CHUNKS = 200  # of one stream, as bench/streams sends them
WARM_SECONDS = 1.0
# Many open streams: more than the slots of four replicas.
OPEN_SECONDS, MANY = 30.0, Upstream(stream=True, replicas=8, gap=5.0)
REST_SECONDS, REST_LOOKS, BUSY = 0.2, 25, 0.2  # the last is a part of a core
TARGETS: dict[tuple[str, str], Maker] = {
    ("overspill", "prefix"): ours,
    ("vllm-router", "round_robin"): partial(rust_router, "vllm-router", "round_robin"),
    ("sglang-router", "cache_aware"): partial(rust_router, "sglang-router", "cache_aware"),
    ("litellm", "simple-shuffle"): litellm,
}


@dataclass(frozen=True)
class Target:
    """A gateway that runs.

    :param group: of its processes.
    """

    name: str
    policy: str
    url: str
    group: int


async def started(stack: AsyncExitStack, names: Sequence[str], upstream: Upstream) -> list[Target]:
    """Start the replicas, and before them the targets; leave the targets stopped."""
    folder = Path(stack.enter_context(TemporaryDirectory()))
    addresses = await stack.enter_async_context(replicas(upstream, folder))
    targets = []
    for (name, policy), make in TARGETS.items():
        if name in names:
            program = make(addresses, Path(stack.enter_context(TemporaryDirectory())))
            pinned = replace(program, command=on_core(GATEWAY_CORE, program.command))
            process = await stack.enter_async_context(running(pinned))
            with awake(process.pid):
                targets.append(Target(name, policy, program.url, process.pid))
    return targets


async def measure(target: Target, load: Load, number: int, seconds: float) -> Row:
    """Run one round of one target.

    :param number: of the round.
    """
    with awake(target.group):
        await send(target.url, load, WARM_SECONDS)
        await rest(target.group)
        before, begun = used(target.group), time.monotonic()
        seen = await send(target.url, load, seconds)
        after, took = used(target.group), time.monotonic() - begun
    cpu_us = (after.cpu - before.cpu) * 1e6
    requests = seen["streams"] if load.stream else seen["requests"]
    return {
        "target": target.name,
        "policy": target.policy,
        "body_bytes": load.body_bytes,
        "connections": load.connections,
        "stream": load.stream,
        "round": number,
        "requests_per_s": round(requests / (took if load.stream else seen["seconds"]), 1),
        "cpu_us_per_request": round(cpu_us / requests, 1) if requests else None,
        "cpu_us_per_chunk": round(cpu_us / seen["chunks"], 2) if seen.get("chunks") else None,
        "p50_ms": round(seen["p50_ms"], 2),
        "p99_ms": round(seen["p99_ms"], 2),
        "rss_mb": round(after.resident / 1e6, 1),
        "errors": seen["errors"],
    }


async def hold_open(name: str, count: int) -> Row:
    """Let a gateway carry many streams at a time, in each of which little is said.

    :param count: of streams.
    """
    async with AsyncExitStack() as stack:
        (target,) = await started(stack, [name], MANY)
        with awake(target.group):
            before = peak = used(target.group).resident
            load = Load(STREAM_BODY, count, stream=True)
            sending = asyncio.create_task(send(target.url, load, OPEN_SECONDS))
            while not (await asyncio.wait([sending], timeout=REST_SECONDS))[0]:
                peak = max(peak, used(target.group).resident)
            seen = sending.result()
    return {
        "target": name,
        "streams": count,
        "open": seen["begun"],
        "errors": seen["errors"],
        "kb_per_stream": round((peak - before) / count / 1e3, 1),
        "first_chunk_p99_ms": round(seen["p99_ms"]),
    }


async def rest(group: int) -> None:
    """Wait until a gateway has ended what clients have left, which not all of them notice."""
    for _ in range(REST_LOOKS):
        before = used(group).cpu
        await asyncio.sleep(REST_SECONDS)
        if used(group).cpu - before < REST_SECONDS * BUSY:
            return


def loads(*, stream: bool) -> Iterator[Load]:
    """Yield what is asked for."""
    for size in (STREAM_BODY,) if stream else BODIES:
        for connections in CONNECTIONS:
            yield Load(size, connections, stream)


async def run(options: argparse.Namespace) -> list[Row]:
    """Measure everything, writing the rows as they come."""
    rows: list[Row] = []
    for stream in (False, True):
        async with AsyncExitStack() as stack:
            targets = await started(stack, options.targets, Upstream(stream))
            for number in range(1, options.rounds + 1):
                for load in loads(stream=stream):
                    for target in targets:
                        rows.append(await measure(target, load, number, options.seconds))
                        RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def main() -> None:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name for name, _ in TARGETS]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round of one target")
    parser.add_argument("--open", type=int, default=5000, help="streams at a time; 0: none")
    parser.add_argument("--targets", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    if (os.cpu_count() or 1) <= GATEWAY_CORE:
        sys.exit("two cores are needed: one for the gateway, one for its replicas and clients")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    rows = asyncio.run(run(options))
    print(table(rows))
    for name in (OURS, RIVAL) if options.open else ():
        print("streams", json.dumps(asyncio.run(hold_open(name, options.open))))
    for met, text in bars(rows):
        print(f"{'met   ' if met else 'MISSED'} {text}")
    print(f"{len(rows)} rows, {time.monotonic() - begun:.0f} s, {platform.machine()}")


if __name__ == "__main__":
    main()
