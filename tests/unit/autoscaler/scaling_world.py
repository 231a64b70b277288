"""A small world for stories: a service, its pods and its load, with time that we turn by hand."""

from dataclasses import replace

from overspill.autoscaler.policy import Decision, PolicyState, decide
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Demand, Replicas, Rules, Signals

RULES = Rules(
    min_replicas=1,
    max_replicas=10,
    slots=4,
    ttft=2.0,
    itl=0.1,
    queue_wait=1.0,
    idle_after=600.0,
    up_window=10.0,
    down_window=300.0,
)
CALM = Signals(
    gateways=1.0,
    arrivals_rate=0.0,
    in_flight=0.0,
    spilled_in_flight=0.0,
    queued=0.0,
    local_rate=0.0,
    spilled_rate=0.0,
    within_objective_rate=0.0,
)
TICK = 5.0


def busy(load: float, rate: float = 1.0, **more: float) -> Signals:
    """Signals of a service that works on ``load`` requests at a time."""
    values = {"in_flight": load, "arrivals_rate": rate, "local_rate": rate, **more}
    return replace(CALM, residence=load / rate if rate else CALM.residence, **values)


def told(load: float = 0.0, **more: float) -> Demand:
    """What complete gateways say."""
    values = {"arrivals_rate": 0.0, "in_flight": load, "spilled_in_flight": 0.0}
    return Demand(**{**values, "queued": 0.0, "held": 0.0, **more})


class World:
    """One service in a cluster with ``room`` for so many replicas, which boot in ``boot`` s."""

    def __init__(self, replicas: int = 1, room: int = 100, boot: float = 30.0, **rules: float):
        self.rules = replace(RULES, **rules)
        self.now = 1_000_000.0
        self.room, self.boot = room, boot
        self.state = PolicyState.start(self.now, replicas, replicas)
        self.started = [self.now - boot] * replicas  # of placed pods
        self.decisions: list[Decision] = []
        self.grant: Grant | None = None

    @property
    def count(self) -> int:
        """Replicas wanted."""
        return self.state.replicas

    @property
    def reason(self) -> str:
        """Of the last decision."""
        return self.decisions[-1].reason

    def pods(self) -> Replicas:
        """What the cluster makes of the wanted count."""
        wanted = self.state.replicas
        placed = min(wanted, self.room)
        self.started = (self.started + [self.now] * placed)[:placed]
        ready = sum(1 for start in self.started if self.now - start >= self.boot)
        return Replicas(wanted, placed, ready, wanted - placed)

    def tick(self, signals: Signals, live: Demand | None = None, seconds: float = TICK) -> int:
        """Turn time by ``seconds``, decide once, return the count."""
        self.now += seconds
        pods = replace(self.pods(), grant=self.grant)
        decision, self.state = decide(self.now, self.state, self.rules, pods, signals, live)
        self.decisions.append(decision)
        return self.count

    def run(self, seconds: float, signals: Signals, live: Demand | None = None) -> int:
        """Decide every tick for so long, return the count at the end."""
        for _ in range(int(seconds / TICK)):
            self.tick(signals, live)
        return self.count

    def moves(self) -> list[tuple[int, int, str]]:
        """The decisions that changed the count."""
        return [
            (d.replicas_from, d.replicas_to, d.reason)
            for d in self.decisions
            if d.replicas_from != d.replicas_to
        ]
