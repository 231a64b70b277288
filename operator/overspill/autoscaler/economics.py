"""Layer 2: how many replicas are cheaper than the cloud.

Replicas fill one after another, so each count is a question of its own: is the next replica, for
as busy as it would be, cheaper than sending that work to a provider? It is where
``busy × price ratio > 1``. To start one costs its boot, during which it serves nothing: a ski
rental. The classic answer, lazy capacity provisioning, waits until the regret of not having
switched equals that cost (Lin, Wierman, Andrew, Thereska, https://doi.org/10.1109/TNET.2012.2226216).
It waits for noise as long as for news. Here noise is taken out first (``regime``), so a part of
the regret is enough, provided that the switch is expected to pay before the load changes again.

Limits: what the demand layer says of one replica's capacity is taken as true; a provider's limits
and budgets are not known here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from overspill.autoscaler import regime
from overspill.autoscaler.regime import Beginning, Outlook

PATIENCE = 0.2  # of the cost of a start: the regret after which a count changes
REACH = 2  # counts beyond the load and the present count that are looked at


@dataclass(frozen=True)
class Prices:
    """What decides between a replica and the cloud."""

    ratio: float  # cost of one busy replica's work in the cloud, over the replica's own
    boot: float  # seconds from the order until a replica serves, billed


@dataclass(frozen=True)
class Costs:
    """What a replica and the cloud cost a service, in US dollars."""

    replica_hour: float  # of all accelerators of one replica; more than 0
    request: float  # one request of the usual kind, where it would be sent
    boot: float  # seconds

    def prices(self, rate: float) -> Prices:
        """Return what decides.

        :param rate: requests/s of a busy replica.
        """
        return Prices(rate * 3600 * self.request / self.replica_hour, self.boot)


@dataclass(frozen=True, slots=True)
class EconomicsState:
    """What one decision hands to the next."""

    outlook: Outlook
    replicas: int = 0  # wanted when the regret was counted
    regret: tuple[float, ...] = ()  # replica-seconds lost by each count's being on or off
    busy: tuple[float, ...] = ()  # share of its time that each replica would be, seen last
    chosen: int = 0  # at that look

    @classmethod
    def start(cls, now: float, load: float) -> Self:
        """Begin with a first look at the load, in replicas' worth of work."""
        return cls(Outlook.start(now, load))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` gave, also after a way through JSON."""
        outlook = dict(raw["outlook"])
        outlook["beginnings"] = tuple(Beginning(*b) for b in outlook["beginnings"])
        outlook["hour"] = tuple(outlook["hour"])
        regret, busy = tuple(raw["regret"]), tuple(raw["busy"])
        return cls(Outlook(**outlook), raw["replicas"], regret, busy, raw["chosen"])

    def resume(self, now: float, load: float) -> "EconomicsState":
        """Begin again after a time that nobody saw; what was learned of the hour is kept."""
        return EconomicsState(replace(Outlook.start(now, load), hour=self.outlook.hour))

    def learn(self, now: float, load: float) -> "EconomicsState":
        """Look at the load without a decision, as at a recorded past."""
        return EconomicsState(regime.observe(now, self.outlook, load))


@dataclass(frozen=True, slots=True)
class Choice:
    """How many replicas, and what decided."""

    replicas: int
    current: int
    busy: tuple[float, ...]  # share of its time that each replica would be busy, first to last
    ratio: float

    def explain(self, replica_hour: float) -> str:
        """Say what a replica costs, and what the cloud would for the last one's work, and the next.

        :param replica_hour: US dollars.
        """
        shown = [n for n in (self.replicas, self.replicas + 1) if 0 < n <= len(self.busy)]
        works = [
            f"replica {n} ({self.busy[n - 1]:.0%} busy) {self._cloud(n, replica_hour)}"
            for n in shown
        ]
        text = f"a replica costs {dollars(replica_hour)}/h"
        if works:
            text += f"; in the cloud, the work of {' and of '.join(works)}"
        return text

    @property
    def best(self) -> int:
        """How many replicas pay right now, whatever a change costs; the last one goes when idle."""
        worth = 1 / self.ratio if self.ratio else math.inf
        return max(1, sum(share > worth for share in self.busy))

    def hourly(self, replicas: int, replica_hour: float) -> float:
        """Return what a count would cost now: its replicas, and in the cloud what they leave.

        :param replica_hour: US dollars.
        """
        return replica_hour * (replicas + self.ratio * sum(self.busy[replicas:]))

    def savings(self, replica_hour: float) -> tuple[float, ...]:
        """Return what each replica saves against the cloud, US dollars per hour, first to last.

        :param replica_hour: US dollars.
        """
        return tuple(replica_hour * (self.ratio * share - 1) for share in self.busy)

    def _cloud(self, replica: int, replica_hour: float) -> str:
        return f"{dollars(self.ratio * self.busy[replica - 1] * replica_hour)}/h"


def dollars(amount: float) -> str:
    """Return an amount for people: whole cents where there are some, else two digits."""
    return f"${amount:.2f}" if amount >= 0.1 or not amount else f"${amount:.2g}"


def choose(
    now: float, state: EconomicsState, load: float, current: int, prices: Prices
) -> tuple[Choice, EconomicsState]:
    """Decide how many replicas are cheaper than the cloud.

    :param now: seconds since the epoch; later than in the last call.
    :param load: offered now, spilled work included, in replicas' worth of work.
    :param current: replicas wanted now, pending ones among them.
    """
    outlook = regime.observe(now, state.outlook, load)
    levels = max(current, state.replicas, math.ceil(load)) + REACH
    busy = outlook.busy(levels)
    step = now - state.outlook.time
    saving = [prices.ratio * share - 1 for share in busy]
    regret = _regret(state, current, [rate * step for rate in saving])
    count = _switch(regret, saving, current, prices.boot, outlook)
    choice = Choice(count, current, tuple(busy), prices.ratio)
    return choice, EconomicsState(outlook, current, tuple(regret), tuple(busy), count)


def _regret(state: EconomicsState, current: int, saving: list[float]) -> list[float]:
    """Return what it has cost so far that each replica runs, or that it does not.

    Where the count has changed since, by us or by others, that begins anew.
    """
    before = [*state.regret, *(0.0,) * (len(saving) - len(state.regret))]
    for changed in range(min(state.replicas, current), max(state.replicas, current)):
        before[changed] = 0.0
    running = [r - s for r, s in zip(before[:current], saving, strict=False)]
    missing = [r + s for r, s in zip(before[current:], saving[current:], strict=False)]
    return [regret if regret > 0.0 else 0.0 for regret in running + missing]


def _switch(
    regret: list[float], saving: list[float], current: int, boot: float, outlook: Outlook
) -> int:
    """Return the count past every replica whose regret is enough, and whose switch still pays.

    A start has to earn its boot, and a stop the next one, before the load is another.
    """
    enough = PATIENCE * boot
    due = [r > enough for r in regret]
    if not due[current] and not (current and due[current - 1]):
        return current
    count = current
    served = outlook.lasting(boot) if due[current] else 0.0
    while count < len(due) and due[count] and saving[count] * served > boot:
        count += 1
    if count > current or not (current and due[current - 1]):
        return count
    left = outlook.lasting(0.0)
    while count and due[count - 1] and -saving[count - 1] * left > boot:
        count -= 1
    return count
