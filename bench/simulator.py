"""How long simulations take, in seconds of one core, against the project's bars.

    make bench-simulator

Discrete-event: a day of ServeGen m-large, scaled to 50 requests/s on average, under the operator's
policy; at most 5 minutes. Fluid: all two weeks of it, policy by policy; at most 5 s each. CPU time
is counted, so that other work on the machine matters little. Reading the trace and drawing the
arrivals count for the day, as `overspill simulate` does both.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

from engine import machine
from overspill.simulator import parameters
from overspill.simulator.arrivals import arrivals
from overspill.simulator.discrete import ITL, World, simulate
from overspill.simulator.fluid import Setting
from overspill.simulator.fluid import simulate as simulate_rates
from overspill.simulator.load import loads
from overspill.simulator.policies import CONTENDERS
from overspill.simulator.scalers import CONTENDERS as SCALERS
from overspill.simulator.scalers import Terms
from overspill.simulator.sizing import capacity, engine_for, initial_replicas, provider_for
from overspill.simulator.traces import read

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "simulator.json"
RATE, DAY_BAR = 50.0, 300.0  # requests/s; seconds for 24 hours
FLUID_BAR = 5.0  # seconds for a policy
RATIO, HOURLY = 3.0, 2.5


def day(path: Path, hours: float) -> tuple[int, float]:
    """Return the requests of so many hours, and the seconds that they take."""
    began = time.process_time()
    trace = read(path).slice(0.0, 3600 * hours)
    mean = sum(w.rate * w.length for w in trace.windows) / trace.duration
    requests = arrivals(trace, RATE / mean, seed=0)
    engine = engine_for(parameters.load("gpu").model, requests, ITL)
    rate = capacity(engine, requests)
    world = World(engine, provider_for(requests, rate, HOURLY, RATIO), HOURLY)
    scaler = SCALERS["overspill"].make(Terms(world, RATIO, rate), 0.0)
    simulate(world, scaler, requests, initial_replicas(requests, rate))
    return len(requests), time.process_time() - began


def weeks(path: Path) -> dict[str, float]:
    """Return the seconds that the whole trace takes as rates, by policy."""
    setting = Setting(capacity=5.0, hourly=HOURLY, ratio=RATIO, boot=120.0)
    load = loads(read(path), setting, 0.25)
    found = {}
    for name, contender in CONTENDERS.items():
        began = time.process_time()
        policy = contender.make(setting, contender.default)
        simulate_rates(policy, load, setting, math.ceil(load[0]), 0.0)
        found[name] = round(time.process_time() - began, 2)
    return found


def main() -> None:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of servegen-m-large.csv")
    parser.add_argument("--hours", type=float, default=24.0, help="of the day")
    arguments = parser.parse_args()
    path = arguments.traces / "servegen-m-large.csv"
    fluid = weeks(path)
    for name, seconds in fluid.items():
        print(f"two weeks as rates, {name:<12} {seconds:6.2f} s   (bar {FLUID_BAR:g})", flush=True)
    count, seconds = day(path, arguments.hours)
    bar = DAY_BAR * arguments.hours / 24
    print(f"{arguments.hours:g} hours, {count} requests   {seconds:6.1f} s   (bar {bar:g})")
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "fluid_s": fluid,
        "discrete": {"hours": arguments.hours, "requests": count, "seconds": round(seconds, 1)},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    met = seconds <= bar and max(fluid.values()) <= FLUID_BAR
    sys.exit(0 if met else "a bar is missed")


if __name__ == "__main__":
    main()
