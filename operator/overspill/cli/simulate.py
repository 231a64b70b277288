"""`overspill simulate`: what autoscalers would have cost under a recorded load, at fluid level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output
from overspill.simulator.baselines.classic import Constant, best_constant
from overspill.simulator.fluid import Policy, Run, Setting, simulate
from overspill.simulator.load import loads
from overspill.simulator.optimum import optimum
from overspill.simulator.policies import CONTENDERS
from overspill.simulator.traces import TraceError, read


@dataclass(frozen=True)
class Question:
    """What is asked; see the options' help."""

    trace: Path
    ratio: float
    boot: float
    capacity: float
    hourly: float
    scale: float
    begin: float
    end: float
    learn: float
    seed: int

    @property
    def setting(self) -> Setting:
        """Return it for the simulator; a boot takes whole ticks."""
        return Setting(capacity=self.capacity, hourly=self.hourly, ratio=self.ratio, boot=self.boot)


@dataclass(frozen=True)
class Outcome:
    """One policy's line."""

    policy: str
    cost: float  # USD
    over_optimum: float  # 1 = as cheap as hindsight
    spill_share: float
    starts: int
    run: Run


def run(question: Question, policies: Sequence[str], plot: Path | None, output: Output) -> None:
    """Simulate, and print the cheapest first.

    :raises CommandError: the trace cannot be read, or a value or name makes no sense.
    """
    _check(question, policies)
    try:
        trace = read(question.trace)
        if question.begin > 0 or question.end < trace.duration:
            trace = trace.slice(question.begin, question.end)
        load = loads(trace, question.setting, question.scale, question.seed)
    except TraceError as error:
        raise CommandError(str(error), USAGE) from None
    split = int(len(load) * question.learn)
    past, scored = load[:split], load[split:]
    initial = math.ceil(scored[0])
    least = optimum(scored, question.setting, initial)
    outcomes = sorted(
        (
            _outcome(name, policy, question.setting, past, scored, least)
            for name, policy in _policies(question.setting, policies, scored)
        ),
        key=lambda o: o.cost,
    )
    _print(outcomes, least, output)
    if plot is not None:
        _plot(outcomes, question.setting, plot)


def _check(question: Question, policies: Sequence[str]) -> None:
    for field in fields(question):
        value = getattr(question, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise CommandError(f"--{field.name} must be a finite number", USAGE)
    for name in policies:
        if name not in CONTENDERS and name != "constant":
            known = ", ".join([*CONTENDERS, "constant"])
            raise CommandError(f"--policy {name} is not known; known are: {known}", USAGE)


def _policies(
    setting: Setting, names: Sequence[str], scored: Sequence[float]
) -> list[tuple[str, Policy]]:
    """Return the policies at their documented defaults; the best constant count with hindsight."""
    made: list[tuple[str, Policy]] = []
    for name in names or (*CONTENDERS, "constant"):
        if name == "constant":
            made.append((name, Constant(best_constant(scored, setting.ratio))))
        else:
            made.append((name, CONTENDERS[name].make(setting, CONTENDERS[name].default)))
    return made


def _outcome(
    name: str,
    policy: Policy,
    setting: Setting,
    past: Sequence[float],
    scored: Sequence[float],
    least: float,
) -> Outcome:
    for tick, offered in enumerate(past):
        policy.learn(tick * setting.tick, offered)
    begin = len(past) * setting.tick
    done = simulate(policy, scored, setting, math.ceil(scored[0]), begin)
    cost = done.cost()
    over = cost / least if least else 1.0
    return Outcome(name, cost, over, done.spill_share, done.starts, done)


def _print(outcomes: Sequence[Outcome], least: float, output: Output) -> None:
    if output is Output.JSON:
        shown = [f.name for f in fields(Outcome) if f.name != "run"]
        lines = [{name: getattr(o, name) for name in shown} for o in outcomes]
        show.as_json({"optimum": least, "policies": lines})
        return
    rows = [
        (o.policy, f"{o.cost:.2f}", f"{o.over_optimum:.3f}", f"{o.spill_share:.1%}", str(o.starts))
        for o in outcomes
    ]
    rows.append(("with hindsight", f"{least:.2f}", "1.000", "", ""))
    show.table(("policy", "usd", "over optimum", "spilled", "starts"), rows)


def _plot(outcomes: Sequence[Outcome], setting: Setting, path: Path) -> None:
    """Draw load and replicas over time, one panel for each policy."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CommandError("--plot needs matplotlib: pip install 'overspill[report]'") from None
    figure = Figure(figsize=(10, 2.2 * len(outcomes)), layout="constrained")
    panels = figure.subplots(len(outcomes), sharex=True, squeeze=False)
    for axes, outcome in zip(panels[:, 0], outcomes, strict=True):
        hours = [tick * setting.tick / 3600 for tick in range(len(outcome.run.load))]
        axes.plot(hours, outcome.run.load, color="0.7", linewidth=0.5, label="load")
        axes.step(hours, outcome.run.ready, where="post", linewidth=1, label="ready")
        axes.set(title=f"{outcome.policy}: {outcome.cost:.2f} USD", ylabel="replicas")
    panels[0, 0].legend(loc="upper right")
    panels[-1, 0].set_xlabel("hours")
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; give another --plot", USAGE) from None
