"""Budgets hold whatever happens between gateways and the operator, and nobody is refused in vain.

`make test` plays ten thousand schedules, `make soak` a million: OVERSPILL_SCHEDULES says how many.
"""

import os
import random

import pytest
from release import CLOUD, HOUR, Gateway, Release, play

from overspill.api.budget import Window
from overspill.ledger.purse import Accounts, Purse
from overspill.ledger.treasury import Share

SCHEDULES = int(os.environ.get("OVERSPILL_SCHEDULES", "500"))
BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_schedule_passes_a_budget(batch: int) -> None:
    sent = 0
    for seed in range(batch, SCHEDULES, BATCHES):
        release = play(seed)
        sent += sum(release.bill.values())
        dice = random.Random(seed)
        for gateway in release.gateways:
            for _ in range(2):
                refused_for_a_reason(release, gateway, dice)
        release.quiet()
        release.check()
        if release.started == len(release.gateways):  # nobody was killed: all is told
            release.check_sums()
    assert sent > 0, "a schedule in which nothing is sent proves nothing"


def refused_for_a_reason(release: Release, gateway: Gateway, dice: random.Random) -> None:
    """Let a gateway want money while all is up; without it an account has no room, and says so."""
    names = dice.sample(list(release.limits), dice.randint(1, len(release.limits)))
    worst = dice.randint(1, 400)
    release.want(gateway, worst, *names)
    release.exchange(gateway)
    asked = gateway.waiting
    assert asked
    if release.try_to_send(gateway):
        return
    assert free(release, gateway.purse, asked[0]) < worst, "there was room"
    assert gateway.purse.refused(*asked, release.now), "it is told at once"
    gateway.give_up()


def free(release: Release, purse: Purse, accounts: Accounts) -> int:
    """Return what the operator could let a gateway have in all these accounts, as it has heard."""
    amounts = []
    for account, limits in accounts.items():
        for window, limit in limits.items():
            pot = release.treasury.pot(account, window, release.wall)
            share = pot.shares.get(purse.holder, Share())
            amounts.append(limit - pot.charged + share.allowed - share.spent - share.reserved)
    return min(amounts)


def room(release: Release, purse: Purse, accounts: Accounts) -> int:
    """Return what a gateway can have at most in all these accounts: its own, and what is left."""
    amounts = []
    for account, limits in accounts.items():
        for window, limit in limits.items():
            pot = release.treasury.pot(account, window, release.wall)
            share, own = pot.shares.get(purse.holder), purse._current.get((account, window))
            mine = share.allowed - own.spent - own.reserved if share and own else 0
            amounts.append(limit - pot.charged + mine)
    return min(amounts)


@pytest.mark.parametrize("seed", range(30))
def test_nobody_is_refused_while_there_is_room_and_the_operator_is_up(seed: int) -> None:
    dice = random.Random(seed)
    limits = {CLOUD: {HOUR: dice.randint(100, 3000)}, "key/ci": {Window.DAY: 2500}}
    release, refused = Release(limits, gateways=3), 0
    for _ in range(40):
        gateway = dice.choice(release.gateways)
        worst, names = dice.randint(1, 200), dice.sample(list(limits), dice.randint(1, 2))
        possible = room(release, gateway.purse, {n: limits[n] for n in names}) >= worst
        release.want(gateway, worst, *names)
        release.exchange(gateway)
        waiting = gateway.waiting
        sent = release.try_to_send(gateway)
        assert sent or not possible
        if not sent:
            assert waiting
            assert gateway.purse.refused(*waiting, release.now), "it is told at once"
            refused += 1
            gateway.give_up()
        elif dice.random() < 0.7:
            release.settle(gateway, 0, dice.randint(0, gateway.sent[0].worst))
        release.now += dice.choice([0.1, 2.0, 6.0])
        release.check()
    assert refused > 0 or limits[CLOUD][HOUR] > 1000


def test_a_thousand_requests_at_once_get_what_there_is_and_no_more() -> None:
    """Row 1: four gateways, room for ten worst cases, whoever is heard first."""
    for seed in range(SCHEDULES // 10):
        dice, account = random.Random(seed), {CLOUD: {HOUR: 1000}}
        release = Release(account, gateways=4)
        for _ in range(1000):
            dice.choice(release.gateways).purse.want(account, 100)
        for _ in range(24):
            release.state(dice.choice(release.gateways))
            if dice.random() < 0.7:
                release.hear(dice.randrange(len(release.up)))
            if release.down and dice.random() < 0.7:
                release.deliver(dice.randrange(len(release.down)))
            send_all(release, dice.choice(release.gateways), account)
        for gateway in release.gateways:
            release.exchange(gateway)
            send_all(release, gateway, account)
            assert gateway.purse.refused(account, 100, release.now), "the others are told at once"
        assert sum(release.bill.values()) == 1000, seed
        release.check()


def send_all(release: Release, gateway: Gateway, account: Accounts) -> None:
    """Send what a gateway has money for."""
    while (held := gateway.purse.reserve(account, 100, release.now)) is not None:
        gateway.purse.give_up(account, 100)
        release.charge(held, 100)
