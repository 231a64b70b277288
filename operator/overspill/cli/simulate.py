"""`overspill simulate`: what autoscalers would have cost under a recorded load, at either level."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Level, ReportOutput
from overspill.simulator import discrete, scalers, timeline
from overspill.simulator.arrivals import arrivals
from overspill.simulator.baselines.classic import Constant, best_constant
from overspill.simulator.fluid import Policy, Setting, simulate
from overspill.simulator.load import loads
from overspill.simulator.optimum import optimum
from overspill.simulator.parameters import ParametersError, load
from overspill.simulator.policies import CONTENDERS
from overspill.simulator.report import page
from overspill.simulator.sizing import capacity, engine_for, initial_replicas, provider_for
from overspill.simulator.timeline import Timeline
from overspill.simulator.traces import Trace, TraceError, read

CONSTANT = "constant"  # the best count that never changes; known with hindsight only


@dataclass(frozen=True)
class Question:
    """What is asked; see the options' help."""

    trace: Path
    level: Level
    ratio: float
    boot: float
    capacity: float
    hourly: float
    scale: float
    begin: float
    end: float
    learn: float
    prompt: float
    answer: float
    engine: str  # "" for that of a GPU
    seed: int

    @property
    def setting(self) -> Setting:
        """Return it for the fluid level; a boot takes whole ticks."""
        return Setting(capacity=self.capacity, hourly=self.hourly, ratio=self.ratio, boot=self.boot)


@dataclass(frozen=True)
class Line:
    """One policy's result; what a level does not know is None."""

    policy: str
    cost: float  # USD
    over_optimum: float | None  # 1 = as cheap as hindsight
    attained: float | None  # share of the requests within both objectives
    spill_share: float
    starts: int


@dataclass(frozen=True)
class Answer:
    """All results, the cheapest first, and what was simulated."""

    facts: tuple[str, ...]
    optimum: float | None  # USD
    lines: tuple[Line, ...]
    timelines: tuple[Timeline, ...]  # in the same order


def run(
    question: Question, policies: Sequence[str], plot: Path | None, output: ReportOutput
) -> None:
    """Simulate, and print the cheapest first.

    :raises CommandError: the trace cannot be read, or a value or name makes no sense.
    """
    _check(question, policies)
    fluid = question.level is Level.FLUID
    try:
        trace = read(question.trace)
        if question.begin > 0 or question.end < trace.duration:
            trace = trace.slice(question.begin, question.end)
        answer = (_fluid if fluid else _discrete)(question, trace, policies)
    except (TraceError, ParametersError) as error:
        raise CommandError(str(error), USAGE) from None
    _print(answer, question, output)
    if plot is not None:
        _plot(answer, plot)


def _check(question: Question, policies: Sequence[str]) -> None:
    for field in fields(question):
        value = getattr(question, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise CommandError(f"--{field.name} must be a finite number", USAGE)
    known = _known(question.level)
    for name in policies:
        if name not in known:
            raise CommandError(
                f"--policy {name} is not known; known are: {', '.join(known)}", USAGE
            )
    if question.level is Level.DISCRETE and question.learn:
        raise CommandError("--learn is of the fluid level: leave it out", USAGE)
    if question.level is Level.FLUID and question.engine:
        raise CommandError("--engine is of --level discrete; for rates give --capacity", USAGE)


def _known(level: Level) -> tuple[str, ...]:
    return (*CONTENDERS, CONSTANT) if level is Level.FLUID else tuple(scalers.CONTENDERS)


def _answer(
    facts: tuple[str, ...], least: float | None, found: list[tuple[Line, Timeline]]
) -> Answer:
    found.sort(key=lambda pair: pair[0].cost)
    lines, timelines = zip(*found, strict=True)
    return Answer(facts, least, lines, timelines)


# The fluid level.


def _fluid(question: Question, trace: Trace, names: Sequence[str]) -> Answer:
    setting = question.setting
    load = loads(trace, setting, question.scale, question.seed)
    split = int(len(load) * question.learn)
    past, scored = load[:split], load[split:]
    least = optimum(scored, setting, math.ceil(scored[0]))
    found = []
    for name in names or _known(Level.FLUID):
        policy = _policy(setting, name, scored)
        for tick, offered in enumerate(past):
            policy.learn(tick * setting.tick, offered)
        begin = len(past) * setting.tick
        done = simulate(policy, scored, setting, math.ceil(scored[0]), begin)
        cost = done.cost()
        over = cost / least if least else 1.0
        line = Line(name, cost, over, None, done.spill_share, done.starts)
        found.append((line, timeline.of_fluid(name, done)))
    facts = (
        f"{len(scored) * setting.tick / 3600:.3g} hours as rates in ticks of {setting.tick:g} s.",
        f"A replica does {setting.capacity:g} requests/s, {_prices(question)}",
    )
    return _answer(facts, least, found)


def _policy(setting: Setting, name: str, scored: Sequence[float]) -> Policy:
    """Return a policy at its documented default; the best constant count with hindsight."""
    if name == CONSTANT:
        return Constant(best_constant(scored, setting.ratio))
    return CONTENDERS[name].make(setting, CONTENDERS[name].default)


def _prices(question: Question) -> str:
    return (
        f"costs {question.hourly:g} USD an hour and boots {question.boot:g} s; "
        f"the cloud is {question.ratio:g} times dearer than a busy replica."
    )


# The discrete-event level.


def _discrete(question: Question, trace: Trace, names: Sequence[str]) -> Answer:
    requests = arrivals(trace, question.scale, question.seed, (question.prompt, question.answer))
    parameters = load(question.engine or "gpu")
    engine = engine_for(parameters.model, requests, discrete.ITL)
    rate = capacity(engine, requests)
    provider = provider_for(requests, rate, question.hourly, question.ratio)
    world = discrete.World(engine, provider, question.hourly, question.boot)
    terms = scalers.Terms(world, question.ratio, rate)
    found = []
    for name in names or _known(Level.DISCRETE):
        contender = scalers.CONTENDERS[name]
        scaler = contender.make(terms, contender.default)
        first = initial_replicas(requests, rate)
        done = discrete.simulate(world, scaler, requests, first, question.seed)
        count = done.requests
        line = Line(name, done.cost, None, done.attained / count, done.spilled / count, done.starts)
        found.append((line, timeline.of_discrete(name, done, rate)))
    facts = (
        f"{len(requests)} requests in {requests[-1].time / 3600:.3g} hours, each on its own.",
        f"A replica computes {engine.slots} at a time, {rate:.3g} requests/s, {_prices(question)}",
        f"Its latency: {parameters.source or question.engine}",
        f"Objectives: {world.ttft:g} s to the first token, {world.itl * 1000:g} ms between tokens.",
    )
    return _answer(facts, None, found)


# What is shown.


def _print(answer: Answer, question: Question, output: ReportOutput) -> None:
    if output is ReportOutput.JSON:
        lines = [asdict(line) for line in answer.lines]
        show.as_json({"optimum": answer.optimum, "policies": lines})
        return
    header = ("policy", "usd", "over optimum", "in objective", "spilled", "starts")
    rows = [
        (
            line.policy,
            f"{line.cost:.2f}",
            "" if line.over_optimum is None else f"{line.over_optimum:.3f}",
            "" if line.attained is None else f"{line.attained:.2%}",
            f"{line.spill_share:.1%}",
            str(line.starts),
        )
        for line in answer.lines
    ]
    if answer.optimum is not None:
        rows.append(("with hindsight", f"{answer.optimum:.2f}", "1.000", "", "", ""))
    if output is ReportOutput.HTML:
        title = f"Autoscalers on {question.trace.name}"
        show.line(page(title, answer.facts, header, rows, answer.timelines))
    else:
        show.table(header, rows)


def _plot(answer: Answer, path: Path) -> None:
    """Draw demand, replicas and spill over time, one panel for each policy, to one scale."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CommandError("--plot needs matplotlib: pip install 'overspill[report]'") from None
    figure = Figure(figsize=(10, 2.2 * len(answer.lines)), layout="constrained")
    panels = figure.subplots(len(answer.lines), sharex=True, sharey=True, squeeze=False)
    for axes, line, curves in zip(panels[:, 0], answer.lines, answer.timelines, strict=True):
        hours = [index * curves.step / 3600 for index in range(len(curves.demand))]
        axes.plot(hours, curves.demand, color="0.7", linewidth=0.5, label="demand")
        axes.plot(hours, curves.spilled, color="tab:red", linewidth=0.5, label="to the cloud")
        axes.step(hours, curves.ready, where="post", linewidth=1, label="ready")
        axes.set(title=f"{line.policy}: {line.cost:.2f} USD", ylabel="replicas")
    panels[0, 0].set_ylim(bottom=0)
    panels[0, 0].legend(loc="upper right")
    panels[-1, 0].set_xlabel("hours")
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; give another --plot", USAGE) from None
