"""What a gateway holds comes back, and what it has spent is charged once, however long it rests."""

import pytest
from release import CLOUD, HOUR, Gateway, Release

from overspill.ledger.messages import MAX_NANO, Grants, Statement
from overspill.ledger.purse import REPEAT


@pytest.fixture
def release() -> Release:
    return Release({CLOUD: {HOUR: 100_000}})


def spend(release: Release, gateway: Gateway, worst: int, cost: int) -> bool:
    """Send one request and settle it; return whether there was money."""
    release.want(gateway, worst)
    release.exchange(gateway)
    sent = release.try_to_send(gateway)
    gateway.give_up()
    if sent:
        release.settle(gateway, 0, cost)
    release.check()
    return sent


def charged(release: Release) -> int:
    return release.treasury.pot(CLOUD, HOUR, release.wall).charged


def test_who_has_spent_is_heard_though_it_rests_and_nothing_is_written(release: Release) -> None:
    gateway = release.gateways[0]
    assert spend(release, gateway, 100, 70)
    release.quiet()
    for _ in range(20):
        record = release.record
        release.now += REPEAT - 1
        assert gateway.purse.statement(release.now) is None
        release.now += 1
        for _ in range(2):  # it is said until it is answered
            statement = gateway.purse.statement(release.now)
            assert statement is not None
            assert [line.spent for line in statement.lines] == [70]
        release.exchange(gateway)
        assert gateway.purse.statement(release.now) is None
        assert release.record == record
    assert charged(release) == 70


def test_a_record_that_was_lost_knows_again_what_living_gateways_spent(release: Release) -> None:
    assert spend(release, release.gateways[0], 100, 70)
    release.quiet()
    release.record = ""
    release.restart()
    assert charged(release) == 0
    release.now += REPEAT
    release.exchange(release.gateways[0])
    assert charged(release) == 70


def test_what_many_requests_left_over_comes_back_while_the_account_is_in_use(
    release: Release,
) -> None:
    busy, other = release.gateways
    account = {CLOUD: release.limits[CLOUD]}
    for _ in range(100):
        busy.purse.want(account, 1000)
    release.exchange(busy)
    for _ in range(100):
        held = busy.purse.reserve(account, 1000, release.now)
        assert held
        busy.purse.give_up(account, 1000)
        release.charge(held, 10)
        busy.purse.settle(held, 10)
    for _ in range(10):
        release.now += 1.0
        assert spend(release, busy, 1000, 10)
    release.exchange(busy)
    assert charged(release) <= 1100 + 2 * 1000
    assert spend(release, other, 50_000, 10)


def test_a_clock_that_stepped_over_a_boundary_and_back_stops_nothing(release: Release) -> None:
    gateway = release.gateways[0]
    assert spend(release, gateway, 100, 100)
    release.step = 3600.0
    assert spend(release, gateway, 100, 100), "there is a rest of that window now"
    release.step = 0.0
    for _ in range(10):
        release.now += 1.0
        assert spend(release, gateway, 100, 100)


def test_a_request_that_no_budget_could_pay_does_not_make_it_full(release: Release) -> None:
    gateway, other = release.gateways
    assert not spend(release, gateway, 100_001, 0)
    assert not release.treasury.pot(CLOUD, HOUR, release.wall).full_for(100_000)
    assert spend(release, other, 60_000, 60_000)
    assert not spend(release, gateway, 50_000, 0)
    assert release.treasury.pot(CLOUD, HOUR, release.wall).full_for(100_000)
    assert spend(release, gateway, 100, 100), "what fits is paid"
    assert not release.treasury.pot(CLOUD, HOUR, release.wall).full_for(100_000)


def test_names_and_sums_of_any_size_can_be_told() -> None:
    longest = f"provider/{'n' * 63}/{'p' * 253}"
    release = Release({longest: {HOUR: 10**18}}, gateways=1)
    (gateway,) = release.gateways
    for _ in range(3):
        gateway.purse.want({longest: release.limits[longest]}, MAX_NANO)
    release.state(gateway)
    (said,) = release.up
    assert Statement.model_validate_json(said.model_dump_json()) == said
    release.hear()
    (answer,) = release.down
    assert Grants.model_validate_json(answer.model_dump_json()) == answer
