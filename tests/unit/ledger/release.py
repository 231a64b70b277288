"""A release in which everything about money can go wrong: gateways, the operator, its record.

The bill is the adversary's: a request costs its worst case from the moment it may be sent, and only
a gateway that lives long enough to see the answer learns that it was less.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from overspill.api.budget import Window
from overspill.ledger.messages import Grants, Limits, Statement
from overspill.ledger.purse import Accounts, Purse, Reservation
from overspill.ledger.treasury import KEPT_SECONDS, Treasury
from overspill.ledger.windows import bounds

EPOCH = 1_796_000_400.0  # an hour's begin
CLOUD = "provider/platform/openai"
HOUR = Window.HOUR
Id = tuple[str, Window, int]


@lru_cache(maxsize=64)
def read(record: str) -> Treasury:
    """Read a record to look at it only."""
    return Treasury.read(record)


@dataclass
class Gateway:
    """One process, with what it has sent."""

    purse: Purse
    sent: list[Reservation] = field(default_factory=list)
    waiting: tuple[Accounts, int] | None = None

    def want(self, accounts: Accounts, worst: int) -> None:
        """Begin to wait for money, or for another amount."""
        self.give_up()
        self.purse.want(accounts, worst)
        self.waiting = (accounts, worst)

    def give_up(self) -> None:
        if self.waiting is not None:
            self.purse.give_up(*self.waiting)
        self.waiting = None


class Release:
    """Gateways, the operator and what lies between them.

    :param limits: what the accounts' budgets are.
    """

    def __init__(self, limits: dict[str, Limits], gateways: int = 2) -> None:
        self.limits = limits
        self.started = 0
        self.gone: list[str] = []  # processes that were killed
        self.gateways = [self.new_gateway() for _ in range(gateways)]
        self.treasury = Treasury()
        self.record = ""  # what the API server has
        self.bill: Counter[Id] = Counter()
        self.up: list[Statement] = []  # under way to the operator
        self.down: list[Grants] = []  # under way to gateways
        self.now = 0.0  # of the gateways' monotonic clocks
        self.step = 0.0  # of the operator's clock, beside that

    @property
    def wall(self) -> float:
        return EPOCH + self.now + self.step

    def new_gateway(self) -> Gateway:
        self.started += 1
        return Gateway(Purse(f"g{self.started}"))

    # what a gateway does

    def want(self, gateway: Gateway, worst: int, *names: str) -> None:
        gateway.want({name: self.limits[name] for name in names or self.limits}, worst)

    def try_to_send(self, gateway: Gateway) -> bool:
        """Send the request that waits, if there is money."""
        if gateway.waiting is None:
            return False
        held = gateway.purse.reserve(*gateway.waiting, self.now)
        if held is None:
            return False
        gateway.give_up()
        gateway.sent.append(held)
        self.charge(held, held.worst)
        return True

    def charge(self, held: Reservation, amount: int) -> None:
        for pot in held.pots:
            self.bill[pot.account, pot.window, pot.begin] += amount

    def settle(self, gateway: Gateway, index: int, cost: int) -> None:
        held = gateway.sent.pop(index)
        gateway.purse.settle(held, cost)
        self.charge(held, cost - held.worst)

    def crash(self, index: int) -> None:
        """Kill a gateway; another takes its place and knows nothing."""
        self.gone.append(self.gateways[index].purse.holder)
        self.gateways[index] = self.new_gateway()

    # what the network and the operator do

    def state(self, gateway: Gateway) -> None:
        """Let a gateway say what it has to say."""
        statement = gateway.purse.statement(self.now)
        if statement is not None:
            self.up.append(statement)

    def hear(self, index: int = -1, *, written: bool = True, answered: bool = True) -> None:
        """Let the operator take a statement; it dies before the write, after it, or not at all."""
        answer = self.treasury.hear(self.up.pop(index), self.wall)
        if written and self.treasury.changed:
            self.record = self.treasury.record(self.wall)
            self.treasury.written()
        if written and answered:
            self.down.append(answer)
        else:
            self.restart()

    def restart(self) -> None:
        """Let another operator take over."""
        self.treasury = Treasury.read(self.record)

    def deliver(self, index: int = -1, *, again: bool = False) -> None:
        """Bring an answer to whom it is for; ``again``: it will come once more."""
        grants = self.down[index] if again else self.down.pop(index)
        for gateway in self.gateways:
            gateway.purse.hear(grants, self.now)

    def exchange(self, gateway: Gateway) -> None:
        """One statement and its answer, nothing lost."""
        before = len(self.up)
        self.state(gateway)
        if len(self.up) > before:
            self.hear()
            self.deliver()

    # what must hold

    def check(self) -> None:
        """No bill is above its budget, nor above what the operator has written down."""
        written = read(self.record)
        for (account, window, begin), amount in self.bill.items():
            assert amount <= self.limits[account][window], "the bill passed the budget"
            if self.wall > bounds(window, begin)[1] + KEPT_SECONDS:
                continue  # forgotten
            charged = written.pot(account, window, begin).charged
            assert amount <= charged, "the record knows less than the bill"

    def check_sums(self) -> None:
        """To the nano-dollar, the operator knows as spent what was billed in each window."""
        for (account, window, begin), amount in self.bill.items():
            if self.wall <= bounds(window, begin)[1] + KEPT_SECONDS:
                assert self.treasury.pot(account, window, begin).spent == amount

    def quiet(self) -> None:
        """Let all requests end and all be said, with nothing lost."""
        self.up.clear()
        for gateway in self.gateways:
            gateway.give_up()
            while gateway.sent:
                self.settle(gateway, 0, gateway.sent[0].worst // 2)
        while self.down:
            self.deliver(0)
        self.now += 6.0
        for gateway in self.gateways:
            self.exchange(gateway)
            self.exchange(gateway)
            assert gateway.purse.statement(self.now) is None, "a quiet gateway says nothing"


def play(seed: int, steps: int = 40) -> Release:
    """Play one schedule of a seed; every step is checked."""
    dice = random.Random(seed)
    limits = {
        CLOUD: {HOUR: dice.randint(5, 3000), Window.DAY: dice.randint(5, 3000)},
        "service/team-a/chat": {Window.MONTH: dice.randint(5, 3000)},
    }
    release = Release(limits, gateways=dice.randint(1, 3))
    for _ in range(steps):
        step(release, dice)
        release.check()
    return release


def step(release: Release, dice: random.Random) -> None:
    """Take one step, drawn at random."""
    gateway = dice.choice(release.gateways)
    action = dice.random()
    if action < 0.25:
        names = dice.sample(list(release.limits), dice.randint(1, len(release.limits)))
        release.want(gateway, dice.randint(1, 400), *names)
        release.state(gateway)
    elif action < 0.45:
        release.try_to_send(gateway)
        release.state(gateway)
    elif action < 0.60 and gateway.sent:
        index = dice.randrange(len(gateway.sent))
        release.settle(gateway, index, dice.randint(0, gateway.sent[index].worst))
        release.state(gateway)
    elif action < 0.75 and release.up:
        fate = dice.random()
        release.hear(dice.randrange(len(release.up)), written=fate > 0.05, answered=fate > 0.1)
    elif action < 0.92 and release.down:
        release.deliver(dice.randrange(len(release.down)), again=dice.random() < 0.1)
    elif action < 0.94:
        release.crash(dice.randrange(len(release.gateways)))
    elif action < 0.96:
        release.restart()
    elif action < 0.97 and release.gone:
        release.treasury.close(release.gone.pop())  # may be heard late all the same
    elif action < 0.98 and release.up:
        release.up.pop()
    elif dice.random() < 0.3:
        release.step = dice.choice([-3600.0, 0.0, 3600.0])
    else:
        release.now += dice.choice([0.5, 6.0, 31.0, 1800.0])
