"""Budgets hold whatever happens between gateways and the operator, and nobody is refused in vain.

`make soak` plays a million schedules: OVERSPILL_SCHEDULES says how many.
"""

import os
import random

import pytest
from release import CLOUD, HOUR, Release, play

from overspill.api.budget import Window
from overspill.ledger.purse import Accounts, Purse

SCHEDULES = int(os.environ.get("OVERSPILL_SCHEDULES", "500"))
BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_schedule_passes_a_budget(batch: int) -> None:
    sent = 0
    for seed in range(batch, SCHEDULES, BATCHES):
        release = play(seed)
        sent += sum(release.bill.values())
        release.quiet()
        release.check()
    assert sent > 0, "a schedule in which nothing is sent proves nothing"


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
    """Row 1: four gateways, room for ten worst cases."""
    release = Release({CLOUD: {HOUR: 1000}}, gateways=4)
    account = {CLOUD: {HOUR: 1000}}
    for gateway in release.gateways:
        for _ in range(250):
            gateway.purse.want(account, 100)
    for gateway in release.gateways:
        release.exchange(gateway)
        while (held := gateway.purse.reserve(account, 100, release.now)) is not None:
            release.charge(held, 100)
        assert gateway.purse.refused(account, 100, release.now), "the others are told at once"
    assert sum(release.bill.values()) == 1000
    release.check()
