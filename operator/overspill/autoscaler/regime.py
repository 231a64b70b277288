"""What the load is now, told apart from its noise: how busy one more replica would be.

A load is a sequence of regimes: for some minutes it wavers about one mean with one variance, then
both are others. How long ago the present regime began is unknown, so every beginning that is still
likely is kept, weighted by how well it foretold what came since
(Adams and MacKay, Bayesian online changepoint detection, https://arxiv.org/abs/0710.3742), with
the normal-gamma prior of a mean and a variance that are both unknown.

Loads often change at the same minutes of an hour, as jobs and clients' schedules do. Those minutes
are learned from the past: at them a change is expected sooner. This helps where it holds, and is
bounded where it does not.

Limits: a few microseconds for each beginning that is kept, at most ``MAX_BEGINNINGS`` of them.
"""

import math
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from math import erfc, exp
from typing import NamedTuple, Self

REGIME = 1500.0  # seconds that a regime lasts, before anything is learned
HOUR, SLOT = 3600, 15  # seconds; changes are remembered by their place in the hour
SLOTS = HOUR // SLOT
HORIZON = 2 * HOUR  # seconds ahead, beyond which nothing is expected
FORGONE = 0.02  # probability below which a regime is over
HINDSIGHT = 120.0  # seconds after which a beginning is judged
LEARNING = 1 / 24  # weight of the newest hour in what is learned
MOST, LEAST = 0.5, 0.002  # probability that a regime begins in one slot
OFTEN = 0.04  # the same, as a mean over the hour: what was learned is believed no further
SLOW = 3600.0  # seconds of memory of the load's usual mean and noise
PRIOR_COUNT = 0.3  # observations that the usual mean counts for when a regime begins
DOUBT = 0.37  # deviation of a regime's first observation, as a part of its jump
MAX_COUNT = 60  # observations that a regime remembers
UNLIKELY = 1e-3  # weight below which a beginning is dropped
MAX_BEGINNINGS = 16
NEGLIGIBLE = 0.02  # weight below which a beginning has no say in an expectation
FAR = 4.5  # standard deviations beyond which a normal distribution is taken as empty
DENSITY, HALF = 1 / math.sqrt(2 * math.pi), math.sqrt(0.5)
_GAMMA = [  # Γ(α+½) / (Γ(α) √2πα) for α = 1 + count/2
    math.exp(math.lgamma(a + 0.5) - math.lgamma(a)) / math.sqrt(2 * math.pi * a)
    for a in (1 + count / 2 for count in range(MAX_COUNT + 1))
]


class Beginning(NamedTuple):
    """One guess when the present regime began, with what was seen since."""

    since: float  # seconds since the epoch
    weight: float
    mean: float
    seen: int  # observations
    squares: float  # β of the normal-gamma distribution; α is 1 + seen/2
    doubt: float  # of the first observation: it may be on its way to another level

    @property
    def variance(self) -> float:
        """Variance of the next observation."""
        known = self.squares * (self.seen + 1) / ((1 + self.seen / 2) * self.seen)
        return known + (self.doubt / self.seen) ** 2

    def follow(self, weight: float, load: float) -> "Beginning":
        """Return it with another weight, after one more observation."""
        since, _, mean, seen, squares, doubt = self
        error = load - mean
        mean += error / (seen + 1)
        squares += error * error * seen / (seen + 1) / 2
        if seen == MAX_COUNT:  # as much is forgotten as is learned
            return Beginning(since, weight, mean, seen, squares * (1 - 1 / seen), doubt)
        return Beginning(since, weight, mean, seen + 1, squares, doubt)


@dataclass(frozen=True, slots=True)
class Outlook:
    """The beginnings that are still likely, and what the hours taught. Load in any unit."""

    since: float  # first observation
    time: float
    last: float
    mean: float  # of the past hour
    noise: float  # mean logarithm of the variance between two observations
    beginnings: tuple[Beginning, ...]
    hour: tuple[float, ...]  # probability of a change, by slot of the hour

    @classmethod
    def start(cls, now: float, load: float) -> Self:
        """Begin with a first observation."""
        floor = _floor(load)
        first = Beginning(now, 1.0, load, 1, floor, DOUBT * load)
        hour = (SLOT / REGIME,) * SLOTS
        return cls(now, now, load, load, math.log(floor), (first,), hour)

    def busy(self, levels: int) -> list[float]:
        """Return how busy each of so many replicas would be, when they fill one after another.

        :param levels: replicas; the load is counted in replicas' worth of work.
        """
        above = [0.0] * (levels + 1)
        total = 0.0
        for beginning in self.beginnings:
            if beginning.weight >= NEGLIGIBLE:
                total += beginning.weight
                _add_excess(above, beginning)
        shares = [(a - b) / total for a, b in pairwise(above)]
        return [0.0 if share < 0.0 else 1.0 if share > 1.0 else share for share in shares]

    def lasting(self, after: float) -> float:
        """Return the seconds that the present regime is expected to last, after the first few.

        :param after: seconds that do not count. No more than ``HORIZON`` are looked at.
        """
        trust, next_slot = _trust(self.hour), _slot(self.time) + 1
        hour = self.hour[next_slot:] + self.hour[:next_slot]
        remains, lasts = 1.0, []
        for learned in chain.from_iterable(repeat(hour, HORIZON // HOUR)):
            if remains < FORGONE:
                break
            lasts.append(remains)
            chance = trust * learned  # within its bounds but for few, and a call costs more
            remains *= 1 - (chance if LEAST < chance < MOST else _chance(chance))
        return SLOT * sum(lasts[math.ceil(after / SLOT) :])


def observe(now: float, outlook: Outlook, load: float) -> Outlook:
    """Return the outlook after one more observation.

    :param now: seconds since the epoch, later than the last.
    """
    step = now - outlook.time
    chance = _chance(_trust(outlook.hour) * outlook.hour[_slot(now)])
    hazard = min(MOST, chance * step / SLOT)
    news = _begin(now, outlook, hazard, load)
    followed = _weigh(outlook.beginnings, 1 - hazard, load)
    beginnings = _likely(outlook.beginnings, followed, news, load)
    share = step / min(SLOW, now - outlook.since)  # the first hour is simply averaged
    difference = max(_floor(load), (load - outlook.last) ** 2 / 2)
    return Outlook(
        outlook.since,
        now,
        load,
        outlook.mean + share * (load - outlook.mean),
        outlook.noise + share * (math.log(difference) - outlook.noise),
        beginnings,
        _learn(outlook, now, step, beginnings),
    )


def _trust(hour: tuple[float, ...]) -> float:
    """Factor by which what was learned of the hour is believed.

    It may say when loads change, but not that they always do: whoever believed that would take
    all noise for news.
    """
    mean = sum(hour) / SLOTS
    return OFTEN / mean if mean > OFTEN else 1.0


def _chance(learned: float) -> float:
    return max(LEAST, min(learned, MOST))


def _floor(load: float) -> float:
    """Variance that every load has at least."""
    return 1e-4 + (0.01 * load) ** 2


def _begin(now: float, outlook: Outlook, prior: float, load: float) -> Beginning:
    """Weigh that a regime began just now: about where loads usually are (Student's t).

    What it begins with may be on its way to another level, the more so the farther it jumped: a
    part of the jump is not believed until more is seen.
    """
    noise, jump = math.exp(outlook.noise), load - outlook.mean
    variance = noise * (1 + 1 / PRIOR_COUNT)
    odds = _GAMMA[0] / math.sqrt(variance) * math.pow(1 + jump * jump / (2 * variance), -1.5)
    mean = load - jump * PRIOR_COUNT / (1 + PRIOR_COUNT)
    return Beginning(now, prior * odds, mean, 1, noise, DOUBT * abs(jump))


def _weigh(beginnings: tuple[Beginning, ...], remains: float, load: float) -> list[float]:
    """Weigh each beginning by how likely it made this load (Student's t).

    :param remains: probability that the regime goes on.
    """
    weights = []
    for _, weight, mean, seen, squares, doubt in beginnings:  # at every look: no call in it
        alpha, error = 1 + seen / 2, load - mean
        variance = squares * (seen + 1) / (alpha * seen) + (doubt / seen) ** 2
        off = error * error / (2 * alpha * variance)
        weights.append(
            remains * weight * _GAMMA[seen] / math.sqrt(variance) * (1 + off) ** (-alpha - 0.5)
        )
    return weights


def _likely(
    before: tuple[Beginning, ...], weights: list[float], news: Beginning, load: float
) -> tuple[Beginning, ...]:
    """Let the likely ones learn, normalise the weights and drop the unlikely.

    :param weights: of ``before``, which ``news`` joins.
    """
    total = sum(weights) + news.weight
    if total <= 0.0:  # nothing foretold this load: only the newest beginning can explain it
        return (news._replace(weight=1.0),)
    least = UNLIKELY * total
    if len(weights) >= MAX_BEGINNINGS:
        ranked = sorted((*weights, news.weight), reverse=True)
        least = max(least, ranked[MAX_BEGINNINGS])
    kept = [b.follow(w / total, load) for b, w in zip(before, weights, strict=True) if w >= least]
    if news.weight >= least:
        kept.append(news._replace(weight=news.weight / total))
    return tuple(kept)


def _learn(
    outlook: Outlook, now: float, step: float, beginnings: tuple[Beginning, ...]
) -> tuple[float, ...]:
    """Judge, with hindsight, whether a regime began in the slot that is two minutes old."""
    end = (now - HINDSIGHT) // SLOT * SLOT
    if now - HINDSIGHT - step >= end:
        return outlook.hour  # that slot was judged before
    slot = _slot(end - SLOT)
    began = sum(b.weight for b in beginnings if end - SLOT <= b.since < end)
    hour = outlook.hour
    learned = hour[slot] + LEARNING * (began - hour[slot])
    return (*hour[:slot], learned, *hour[slot + 1 :])


def _slot(time: float) -> int:
    return int(time % HOUR) // SLOT


def _add_excess(above: list[float], beginning: Beginning) -> None:
    """Add the load expected above each count: E max(0, X − n) of a normal distribution."""
    weight, mean, deviation = beginning.weight, beginning.mean, math.sqrt(beginning.variance)
    first = max(0, min(len(above), math.ceil(mean - FAR * deviation)))
    last = max(0, min(len(above), math.ceil(mean + FAR * deviation)))
    for n in range(first):
        above[n] += weight * (mean - n)
    density, excess, step = weight * deviation * DENSITY, weight / 2, HALF / deviation
    for n in range(first, last):  # at every look for every replica: little in it
        over = mean - n
        z = over * step
        above[n] += density * exp(-z * z) + excess * over * erfc(-z)
