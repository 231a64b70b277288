"""The latency model against the real engine: a minute of a recorded load, predicted and measured.

    make bench-calibrate

Starts `overspill-engine` with llama.cpp and a small model as the image does (two CPU threads, four
sequences), or takes one that runs (--url); calibrates it as `overspill calibrate` would; sends it a
minute of Azure's conversation trace, rates and tokens scaled to what two cores can do; and gives
the same requests to the discrete-event simulator, with the prompts' tokens as the engine counted
them. Writes build/bench/calibrate.json, and with --write the set that comes with the package.

--cpu-time is for a machine that is busy with other things: one thread computes, and time is what
the engine's processes have used of the CPU, so that waiting for it does not count. Where nothing is
asked that time stands still, and is put forward to the next request.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine import machine
from overspill.cli.calibrate_load import Client, Endpoint, Plan, measure, prompt_of, session
from overspill.simulator.arrivals import arrivals
from overspill.simulator.calibration import Measured, fit
from overspill.simulator.discrete import View, World, simulate
from overspill.simulator.engine import Engine
from overspill.simulator.parameters import BUNDLED, Parameters
from overspill.simulator.traces import Request, read
from programs import Program, free_port, running

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "calibrate.json"
MODELS = Path(os.environ.get("OVERSPILL_CACHE") or Path.home() / ".cache/overspill") / "models"
NAME = "bench"
SLOTS, CONTEXT, THREADS = 4, 2048, 2
REQUESTS = 400  # at most, to calibrate with
PATIENCE = 900.0  # seconds of real time for one answer
MINUTE = 60.0  # seconds of the trace


@dataclass(frozen=True)
class One:
    """A scaler that keeps one replica."""

    interval: float = MINUTE

    def target(self, view: View) -> int:
        """Return one."""
        return 1


class Wall:
    """Time as everybody knows it."""

    def __call__(self) -> float:
        """Return seconds."""
        return time.perf_counter()

    async def until(self, due: float, idle: Callable[[], bool]) -> None:
        """Wait for a time."""
        await asyncio.sleep(due - self())


class CpuTime(Wall):
    """Time in which processes compute.

    :param pid: of a program; the processes that it has started count as well.
    """

    def __init__(self, pid: int) -> None:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        started = (
            int(child) for task in tasks for child in (task / "children").read_text().split()
        )
        # The clock of a process, as clock_getcpuclockid(3) makes it.
        self._clocks = [(~one << 3) | 2 for one in (pid, *started)]
        self._skipped = 0.0

    def __call__(self) -> float:
        return sum(map(time.clock_gettime, self._clocks)) + self._skipped

    async def until(self, due: float, idle: Callable[[], bool]) -> None:
        while (left := due - self()) > 0:
            if idle():
                self._skipped += left
            await asyncio.sleep(0.02)


@asynccontextmanager
async def engine(model: Path, threads: int) -> AsyncIterator[tuple[str, int]]:
    """Run an engine to the block's end; give its address and process.

    :param threads: of its computing.
    """
    port = free_port()
    options = {
        "MODEL_PATH": model,
        "SERVED_NAME": NAME,
        "PORT": port,
        "CONTEXT_LENGTH": CONTEXT,
        "MAX_SEQUENCES": SLOTS,
        "CPU_THREADS": threads,
    }
    environment = {f"OVERSPILL_{name}": str(value) for name, value in options.items()}
    environment["GOMP_SPINCOUNT"] = "1000"  # as in the image
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "overspill.engine.main", "serve"]
    async with running(Program(command, url, f"{url}/health", environment)) as process:
        yield url, process.pid


async def replay(endpoint: Endpoint, requests: Sequence[Request], clock: Wall) -> list[Measured]:
    """Send requests at their times; return them as they were counted and answered.

    Times begin with the replay.
    """
    begin, tasks = clock(), list[asyncio.Task[Measured]]()
    async with session() as connections:
        client = Client(connections, endpoint, clock)
        for request in requests:
            await clock.until(begin + request.time, lambda: all(task.done() for task in tasks))
            asked = client.ask(prompt_of(request.input_tokens), request.output_tokens)
            tasks.append(asyncio.create_task(asked))
        seen = await asyncio.gather(*tasks)
    return [
        Measured(
            replace(one.request, time=one.request.time - begin), one.first - begin, one.end - begin
        )
        for one in seen
    ]


def predict(parameters: Parameters, measured: Sequence[Measured]) -> Sequence[float]:
    """Return the TTFTs of the same requests on one simulated replica."""
    replica = Engine(parameters.model, SLOTS, SLOTS * CONTEXT)
    world = World(replica, None, hold=1e9)
    requests = sorted((one.request for one in measured), key=lambda r: r.time)
    return simulate(world, One(), requests, 1).ttfts


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p95."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}


def trace_minute(arguments: argparse.Namespace) -> list[Request]:
    """Return the requests of the minute, scaled."""
    trace = read(arguments.traces / "azure2023-conv.csv")
    part = trace.slice(arguments.begin, arguments.begin + MINUTE)
    return [
        replace(
            request,
            input_tokens=max(8, round(request.input_tokens / arguments.tokens)),
            output_tokens=max(2, round(request.output_tokens / arguments.tokens)),
        )
        for request in arrivals(part, arguments.rate, seed=0)
    ]


def source(arguments: argparse.Namespace, plan: Plan, requests: int) -> str:
    """Return where a set is from."""
    about = machine()
    threads = "one thread, in CPU time" if arguments.cpu_time else f"{THREADS} threads"
    return (
        f"Measured {time.strftime('%Y-%m-%d')} by bench/latency_model.py: llama.cpp as in the "
        f"image engine-cpu, SmolLM2-135M Q4_1, {threads}, {requests} requests, "
        f"up to {SLOTS} at a time, prompts to {plan.prompt} words, answers to {plan.answer} "
        f"tokens, on {about['cores']} shared x86 cores with a load of {about['load_before']}."
    )


def tell(level: int, done: Sequence[Measured]) -> None:
    """Print what a part of the load was."""
    print(f"{level} at a time: {len(done)} requests", flush=True)


async def run(arguments: argparse.Namespace, url: str, clock: Wall) -> dict[str, Any]:
    """Calibrate with lengths like the minute's, replay it and predict it."""
    endpoint, minute = Endpoint(f"{url}/v1", NAME, PATIENCE), trace_minute(arguments)
    longest = max(r.input_tokens for r in minute), max(r.output_tokens for r in minute)
    plan = Plan(SLOTS, *longest, arguments.seconds, REQUESTS)
    seen = await measure(endpoint, plan, tell, clock)
    parameters = Parameters.of(fit(seen), source(arguments, plan, len(seen)))
    print(f"calibrated; {len(minute)} requests within {MINUTE:g} s follow", flush=True)
    measured = await replay(endpoint, minute, clock)
    return {
        "parameters": parameters.model_dump(),
        "requests": len(measured),
        "prompt_tokens": sum(one.request.input_tokens for one in measured),
        "answer_tokens": sum(one.request.output_tokens for one in measured),
        "measured": percentiles([one.ttft for one in measured]),
        "predicted": percentiles(predict(parameters, measured)),
    }


async def main(arguments: argparse.Namespace) -> None:
    """Measure, print, and write the files."""
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
    if arguments.url:
        result = about | await run(arguments, arguments.url, Wall())
    else:
        model = arguments.model or next(MODELS.glob("smollm2-135m/*.gguf"))
        threads = 1 if arguments.cpu_time else THREADS
        async with engine(model, threads) as (url, pid):
            clock = CpuTime(pid) if arguments.cpu_time else Wall()
            result = about | await run(arguments, url, clock)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    parameters = Parameters.model_validate(result["parameters"])
    if arguments.write:
        (BUNDLED / "llamacpp-cpu.yaml").write_text(parameters.text())
    print(f"\n{parameters.text()}\n{result['requests']} requests, TTFT in seconds")
    for name in ("measured", "predicted"):
        print(f"{name:>10}   p50 {result[name]['p50']:.3f}   p95 {result[name]['p95']:.3f}")
    print(f"\n{RESULT.relative_to(ROOT)} written")


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of azure2023-conv.csv")
    parser.add_argument("--url", default="", help=f"of an engine that serves {NAME!r}")
    parser.add_argument("--model", type=Path, help="GGUF file; default: the tests' small one")
    parser.add_argument("--cpu-time", action="store_true", help="see above")
    parser.add_argument("--seconds", type=float, default=120.0, help="to calibrate for")
    parser.add_argument("--begin", type=float, default=600.0, help="second of the trace")
    parser.add_argument("--rate", type=float, default=0.25, help="times the trace's rate")
    parser.add_argument("--tokens", type=float, default=16.0, help="the trace's tokens over ours")
    parser.add_argument("--write", action="store_true", help="write the package's set")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
