"""The fluid level: load as a rate, replicas as a flow of work, weeks of trace in seconds.

In each tick the policy sees the tick's load and says how many replicas it wants. A replica is
billed from its order and serves when its boot is over; of too many, those that are pending are
given back first, the newest before the others. What the ready replicas cannot do goes to the
cloud in the same tick.

Limits: no queue and no latency (that is the discrete-event level's); what is given back is gone
at once.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Setting:
    """What a run is about."""

    tick: float = 15.0  # seconds
    capacity: float = 5.0  # requests/s of one replica
    hourly: float = 2.5  # USD per replica and hour
    ratio: float = 3.0  # cost of one busy replica's work in the cloud, over the replica's own
    boot: float = 120.0  # seconds, a multiple of the tick

    @property
    def boot_ticks(self) -> int:
        """Ticks from an order to the tick that the replica serves first."""
        return round(self.boot / self.tick)

    @property
    def tick_cost(self) -> float:
        """USD per replica and tick."""
        return self.hourly * self.tick / 3600


@dataclass(frozen=True, slots=True)
class Sight:
    """What a policy sees in a tick."""

    now: float  # seconds
    load: float  # offered requests/s over one replica's capacity
    ready: int
    pending: int

    @property
    def replicas(self) -> int:
        """Replicas that were ordered and not given back."""
        return self.ready + self.pending


class Policy(Protocol):
    """A way to scale. It may keep what it has seen, but reads no clock."""

    def learn(self, now: float, load: float) -> None:
        """See a tick of the past, before the run."""

    def target(self, sight: Sight) -> int:
        """Return how many replicas it wants from now on."""


@dataclass(frozen=True)
class Run:
    """What came of it."""

    setting: Setting
    load: Sequence[float]  # in replicas, by tick
    billed: Sequence[int]  # replicas, pending ones among them
    ready: Sequence[int]
    starts: int

    @property
    def spilled(self) -> float:
        """Work that went to the cloud, in replica-ticks."""
        return sum(max(0.0, x - n) for x, n in zip(self.load, self.ready, strict=True))

    @property
    def spill_share(self) -> float:
        """Share of all requests that went to the cloud."""
        return self.spilled / (sum(self.load) or 1.0)

    def cost(self, ratio: float | None = None) -> float:
        """Return USD for replicas and cloud.

        :param ratio: another price ratio, for a policy that did not see the price.
        """
        ratio = self.setting.ratio if ratio is None else ratio
        return self.setting.tick_cost * (sum(self.billed) + ratio * self.spilled)


class Fleet:
    """Replicas that are ready, and those that boot."""

    def __init__(self, ready: int, boot_ticks: int) -> None:
        """Begin with replicas that nobody pays a boot for."""
        self.ready = ready
        self.starts = 0
        self._boot = boot_ticks
        self._orders: deque[list[int]] = deque()  # [tick when they serve, how many], oldest first
        self.pending = 0

    def pass_to(self, tick: int) -> None:
        """Let those serve whose boot is over."""
        while self._orders and self._orders[0][0] <= tick:
            arrived = self._orders.popleft()[1]
            self.ready += arrived
            self.pending -= arrived

    def scale(self, tick: int, target: int) -> None:
        """Order what is missing, or give back what is too much."""
        missing = max(0, target) - self.ready - self.pending
        if missing > 0:
            self.starts += missing
            self.pending += missing
            self._orders.append([tick + self._boot, missing])
        while missing < 0 and self._orders:
            newest = self._orders[-1]
            gone = min(newest[1], -missing)
            newest[1] -= gone
            missing += gone
            self.pending -= gone
            if not newest[1]:
                self._orders.pop()
        self.ready += min(missing, 0)
        self.pass_to(tick)  # a boot of no time


def simulate(
    policy: Policy, load: Sequence[float], setting: Setting, initial: int, begin: float = 0.0
) -> Run:
    """Run a policy over a load.

    :param load: offered requests/s over one replica's capacity, by tick.
    :param initial: ready replicas at the start.
    :param begin: time of the first tick, in seconds.
    """
    fleet = Fleet(initial, setting.boot_ticks)
    billed, ready = [], []
    for tick, offered in enumerate(load):
        fleet.pass_to(tick)
        sight = Sight(begin + tick * setting.tick, offered, fleet.ready, fleet.pending)
        fleet.scale(tick, policy.target(sight))
        billed.append(fleet.ready + fleet.pending)
        ready.append(fleet.ready)
    return Run(setting, load, billed, ready, fleet.starts)
