"""Autoscaling policies on real traces: cost over the optimum with hindsight.

    make bench-autoscaler
    python3 bench/autoscaler.py --traces FOLDER

The discrete-event level is in ``autoscaler_discrete``. The fluid level is fixed so that figures
compare: rates × 0.25, ticks of 15 s, 5 requests/s per replica, 2.5 USD per replica-hour; the first
half of a trace to learn from, the second scored, begun with ceil(first tick ÷ 5) ready replicas
that nobody pays a boot for. Baselines are swept at seed 0, at their documented default and other
targets; the best setting of each then runs at all seeds. Ours has one setting. A trajectory that
does not depend on prices is run once and repriced.

Writes build/bench/autoscaler.json, and autoscaler.png where matplotlib is there, and says which
bars of the project are met (``autoscaler_bars``). The traces are ServeGen's in their summed form,
``servegen-NAME.csv``, and those of ``autoscaler_discrete``; what is not there is left out.
"""

import argparse
import dataclasses
import json
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import autoscaler_discrete
from autoscaler_bars import FORECAST, OURS, Row, chart, table, verdict
from autoscaler_discrete import FILES
from overspill.autoscaler.economics import EconomicsState, Prices
from overspill.simulator.baselines.classic import Constant, best_constant
from overspill.simulator.fluid import Policy, Run, Setting, Sight, simulate
from overspill.simulator.load import loads
from overspill.simulator.optimum import optimum
from overspill.simulator.policies import CONTENDERS, Overspill
from overspill.simulator.traces import read

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "bench" / "autoscaler.json"
TRACES = ("m-large", "deepseek-r1")
SCALE = 0.25
RATIOS, BOOTS = (2.0, 3.0, 5.0), (30.0, 120.0, 300.0)
WHERE = {"level": "fluid", "ttft_attainment": None, "itl_attainment": None}  # no latency in a fluid


@dataclasses.dataclass(frozen=True)
class Case:
    """One seed of one trace."""

    trace: str
    seed: int
    begin: float  # time of the first scored tick
    load: list[float]  # scored
    learned: EconomicsState  # what ours makes of the past

    @classmethod
    def of(cls, trace: str, path: Path, seed: int) -> "Case":
        """Draw the load and learn from its first half."""
        setting = Setting()
        load = loads(read(path), setting, SCALE, seed)
        half = len(load) // 2
        ours = Overspill(Prices(1.0, 0.0))
        for tick, offered in enumerate(load[:half]):
            ours.learn(tick * setting.tick, offered)
        assert ours.state is not None  # noqa: S101
        return cls(trace, seed, half * setting.tick, load[half:], ours.state)

    def run(self, policy: Policy, setting: Setting) -> Run:
        """Run a policy from the agreed start."""
        return simulate(policy, self.load, setting, self.initial, self.begin)

    @property
    def initial(self) -> int:
        """Replicas that are ready at the start."""
        return math.ceil(self.load[0])


class Misled(Overspill):
    """Ours with a forecast that is replaced before each look."""

    def __init__(self, prices: Prices, state: EconomicsState, hour: tuple[float, ...]) -> None:
        super().__init__(prices, state)
        self._hour = hour

    def target(self, sight: Sight) -> int:
        """Return what ours says with that forecast."""
        assert self.state is not None  # noqa: S101
        outlook = dataclasses.replace(self.state.outlook, hour=self._hour)
        self.state = dataclasses.replace(self.state, outlook=outlook)
        return super().target(sight)


def row(case: Case, setting: Setting, policy: str, value: float, run: Run, best: float) -> Row:
    """Return one line of the result."""
    return WHERE | {
        "trace": case.trace,
        "price_ratio": setting.ratio,
        "boot_s": setting.boot,
        "seed": case.seed,
        "policy": policy,
        "setting": value,
        "cost": round(run.cost(setting.ratio), 4),
        "optimum": round(best, 4),
        "spill_share": round(run.spill_share, 5),
        "starts": run.starts,
    }


def runs(case: Case, name: str, value: float, boot: float) -> Iterator[tuple[Setting, Run]]:
    """Yield a policy's run at every price ratio; one run for all, where it sees no prices."""
    contender = CONTENDERS[name]
    run: Run | None = None
    for ratio in RATIOS:
        setting = Setting(ratio=ratio, boot=boot)
        if run is None or contender.sees_prices:
            run = case.run(contender.make(setting, value), setting)
        yield setting, run


def sweep(case: Case, name: str, boot: float) -> dict[float, float]:
    """Return the best value of a baseline's setting, by price ratio."""
    best: dict[float, tuple[float, float]] = {}
    for value in CONTENDERS[name].values:
        for setting, run in runs(case, name, value, boot):
            found = (run.cost(setting.ratio), value)
            best[setting.ratio] = min(found, best.get(setting.ratio, found))
    return {ratio: value for ratio, (_, value) in best.items()}


def ours(case: Case, setting: Setting, best: float) -> Iterator[Row]:
    """Yield ours and the best count that never changes."""
    policy = Overspill(Prices(setting.ratio, setting.boot), case.learned)
    yield row(case, setting, OURS, 0.0, case.run(policy, setting), best)
    count = best_constant(case.load, setting.ratio)
    yield row(case, setting, "constant", count, case.run(Constant(count), setting), best)


def forecasts(case: Case, setting: Setting, best: float) -> Iterator[Row]:
    """Yield ours with no forecast of when loads change, and with wrong ones that never heal."""
    learned = case.learned.outlook.hour
    flat = sum(learned) / len(learned)
    wrong = {
        "none": (flat,) * len(learned),
        "inverted": tuple(max(learned) - p for p in learned),
        "shifted": (*learned[len(learned) // 7 :], *learned[: len(learned) // 7]),
        "random": tuple(random.Random(case.seed).sample(learned, len(learned))),
    }
    for name, hour in wrong.items():
        policy = Misled(Prices(setting.ratio, setting.boot), case.learned, hour)
        run = case.run(policy, setting)
        yield row(case, setting, FORECAST + name, 0.0, run, best)


def rows(trace: str, path: Path, seeds: int) -> Iterator[Row]:
    """Yield all rows of a trace."""
    chosen: dict[tuple[str, float, float], set[float]] = {}
    for seed in range(seeds):
        case = Case.of(trace, path, seed)
        optima = {
            (ratio, boot): optimum(case.load, Setting(ratio=ratio, boot=boot), case.initial)
            for ratio in RATIOS
            for boot in BOOTS
        }
        for (ratio, boot), best in optima.items():
            yield from ours(case, Setting(ratio=ratio, boot=boot), best)
        if seed == 0:
            yield from forecasts(case, Setting(), optima[(3.0, 120.0)])
        for name, contender in CONTENDERS.items():
            for boot in BOOTS if name != OURS else ():
                if seed == 0:
                    for ratio, value in sweep(case, name, boot).items():
                        chosen[(name, ratio, boot)] = {value, contender.default}
                wanted = set().union(*(chosen[(name, r, boot)] for r in RATIOS))
                for value in sorted(wanted):
                    for setting, run in runs(case, name, value, boot):
                        if value in chosen[(name, setting.ratio, boot)]:
                            best = optima[(setting.ratio, boot)]
                            yield row(case, setting, name, value, run, best)
        print(f"{trace}: seed {seed} done", file=sys.stderr)


def parts(folder: Path) -> dict[str, tuple[Path, Callable[[str, Path, int], Iterator[Row]]]]:
    """Return each trace with its file and what yields its rows."""
    fluid = {name: (folder / f"servegen-{name}.csv", rows) for name in TRACES}
    discrete = {n: (folder / f, autoscaler_discrete.rows) for n, f in FILES.items()}
    return {**fluid, **discrete}


def main() -> None:
    """Run all cells, or what the options leave of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of the traces")
    names = (*TRACES, *FILES)
    parser.add_argument("--only", choices=names, action="append", help="a trace; may be repeated")
    parser.add_argument("--seeds", type=int, choices=range(1, 6), default=5)
    options = parser.parse_args()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), list[Row]()
    for name, (path, run) in parts(options.traces).items():
        if options.only and name not in options.only:
            continue
        if not path.exists():
            print(f"{path} is not there: left out", file=sys.stderr)
            continue
        found += run(name, path, options.seeds)
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    if not found:
        sys.exit("no trace: give their folder with --traces")
    chart(found, RESULT.with_suffix(".png"))
    print(table(found))
    print(verdict(found))
    print(f"{len(found)} rows, {time.monotonic() - started:.0f} s, {platform.machine()}")


if __name__ == "__main__":
    main()
