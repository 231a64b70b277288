"""The record is written before money is handed out, survives, and is fenced."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ledger_world import DOLLAR, SERVICE, Mailbox, Store, running, treasurer_of, until, wanting
from prometheus_client import CollectorRegistry

from overspill.api.budget import Window
from overspill.cluster import Unavailable
from overspill.controller import treasurer as treasurers
from overspill.controller.treasurer import Treasurer
from overspill.ledger.messages import Line, Statement
from overspill.ledger.treasury import BadRecord, Treasury

GRANT = DOLLAR // 10


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treasurers, "SPACING", 0.0)
    monkeypatch.setattr(treasurers, "URGENT_SPACING", 0.0)


@pytest.fixture
async def gateway() -> AsyncIterator[Mailbox]:
    async with Mailbox().serving() as mailbox:
        yield mailbox


@pytest.fixture
async def store() -> Store:
    return Store()


def line(mailbox: Mailbox, spent: int = 0, returned: int = 0) -> Line:
    """Return what a gateway says of its newest grant."""
    grant = mailbox.got[-1].grants[0]
    return Line(
        account=SERVICE, window=Window.DAY, begin=grant.begin, seen=grant.number,
        allowed=grant.allowed - returned, spent=spent, reserved=0,
    )  # fmt: skip


async def granted(treasurer: Treasurer, gateway: Mailbox, waiting: int = GRANT) -> int:
    """Want money; return what is allowed in all."""
    before = len(gateway.got)
    treasurer.hear(gateway.address, wanting(waiting))
    await until(lambda: len(gateway.got) > before)
    return gateway.got[-1].grants[0].allowed


def writable(treasurer: Treasurer) -> float | None:
    registry = CollectorRegistry()
    registry.register(treasurer)
    return registry.get_sample_value("overspill_ledger_writable")


async def test_a_grant_is_written_down_before_it_is_handed_out(
    store: Store, gateway: Mailbox
) -> None:
    treasurer = treasurer_of(store)
    async with running(treasurer):
        assert await granted(treasurer, gateway) == store.charged() == GRANT
        store.fault = Unavailable("read-only")
        treasurer.hear(gateway.address, wanting(2 * GRANT))
        await until(lambda: treasurer.problem == "read-only")
        assert len(gateway.got) == 1
        assert writable(treasurer) == 0.0
        store.fault = None
        await until(lambda: not treasurer.problem)
        assert writable(treasurer) == 1.0
        assert await granted(treasurer, gateway, 2 * GRANT) == store.charged()
    assert writable(treasurer) is None, "who does not lead has nothing to say"


async def test_another_operator_goes_on_where_the_first_ended(
    store: Store, gateway: Mailbox
) -> None:
    first, second = treasurer_of(store), treasurer_of(store)
    async with running(first):
        await granted(first, gateway)
    async with running(second):
        await until(lambda: not second.problem)
        assert await granted(second, gateway) == GRANT, "the same holder still has it"
    assert second.stand(SERVICE, {Window.DAY: DOLLAR}, time.time()) is not None


async def test_of_two_operators_only_one_can_grant(store: Store, gateway: Mailbox) -> None:
    old, new = treasurer_of(store), treasurer_of(store)
    async with running(old, new):
        await granted(old, gateway, 6 * GRANT)
        new.hear(gateway.address, wanting(6 * GRANT, holder="g2"))
        await until(lambda: len(gateway.got) > 1)
        assert gateway.got[-1].grants[0].allowed == 0, "it has read what the other wrote"
        assert store.charged() == 6 * GRANT


async def test_a_record_from_the_past_is_written_anew(store: Store, gateway: Mailbox) -> None:
    treasurer = treasurer_of(store)
    async with running(treasurer):
        await granted(treasurer, gateway)
        old = store.record
        treasurer.hear(gateway.address, wanting(0, DOLLAR, "g1", line(gateway, spent=GRANT)))
        await until(lambda: store.treasury.pot(SERVICE, Window.DAY, time.time()).spent == GRANT)
        await granted(treasurer, gateway, GRANT)
        store.put(old)
        treasurer.hear(gateway.address, wanting(GRANT, holder="g2"))
        await until(lambda: store.treasury.revision > 1)
        assert store.treasury.pot(SERVICE, Window.DAY, time.time()).spent == GRANT


async def test_what_a_gateway_knows_heals_a_record_that_forgot_it(
    store: Store, gateway: Mailbox
) -> None:
    first, second = treasurer_of(store), treasurer_of(store)
    async with running(first):
        await granted(first, gateway)
    said = wanting(0, DOLLAR, "g1", line(gateway, spent=GRANT // 2))
    store.put("")  # restored from before anything was spent, while no operator ran
    async with running(second):
        second.hear(gateway.address, said)
        await until(lambda: store.charged() == GRANT)


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 1e999}, {"limit": 1e999}, {"closed": -1}, {"shares": {"g": [1, -1, 0]}},
        {"shares": {"g": [1, 1, 0, 1]}},
        {"shares": ["g"]}, {"begin": 1}, {"begin": 10**17}, {"window": "week"}, {"refused_at": {}},
    ],
)  # fmt: skip
def test_what_is_no_record_of_amounts_is_refused(changes: dict[str, Any]) -> None:
    sound = {"revision": 1, "account": "key/a", "window": "day", "begin": 86_400, "limit": 9}
    sound |= {"closed": 0, "refused_at": None, "shares": {"g": [1, 1, 0]}}

    def text(fields: dict[str, Any]) -> str:
        revision, *pot = fields.values()
        return json.dumps({"revision": revision, "pots": [pot]})

    assert Treasury.read(text(sound)).pot("key/a", Window.DAY, 86_400.0).room == 8
    with pytest.raises(BadRecord):
        Treasury.read(text(sound | changes))


def test_a_record_without_end_is_refused() -> None:
    with pytest.raises(BadRecord):
        Treasury.read("[" * 100_000)


@pytest.mark.parametrize("harm", ["gone", "nonsense"])
async def test_without_a_readable_record_nothing_is_granted(
    store: Store, gateway: Mailbox, harm: str
) -> None:
    treasurer = treasurer_of(store)
    if harm == "gone":
        store.live = None
    else:
        store.put('{"revision": 1}')
    async with running(treasurer):
        treasurer.hear(gateway.address, wanting(GRANT))
        await until(lambda: "was not read yet" not in treasurer.problem)
        assert treasurer.problem.startswith("ConfigMap" if harm == "gone" else "not a record")
        assert store.writes == 0
        store.put("")
        await until(lambda: gateway.got != [])


async def test_a_record_at_its_limit_grants_nothing_and_loses_nothing(
    store: Store, gateway: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    treasurer = treasurer_of(store)
    async with running(treasurer):
        await granted(treasurer, gateway)
        monkeypatch.setattr(treasurers, "MAX_RECORD", 10)
        treasurer.hear(gateway.address, wanting(2 * GRANT))
        await until(lambda: "more accounts than fit" in treasurer.problem)
        assert store.charged() == GRANT
        monkeypatch.undo()
        await until(lambda: store.charged() == 2 * GRANT)
        assert not treasurer.problem


async def test_who_says_nothing_new_causes_no_write(store: Store, gateway: Mailbox) -> None:
    treasurer = treasurer_of(store)
    async with running(treasurer):
        await granted(treasurer, gateway)
        for _ in range(3):
            before = len(gateway.got)
            said = Statement(holder="g1", lines=[line(gateway)], wants={})
            treasurer.hear(gateway.address, said)
            await until(lambda before=before: len(gateway.got) > before)
        assert store.writes == 1


async def test_what_a_silent_gateway_held_stays_charged(
    store: Store, gateway: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treasurers, "SILENT_SECONDS", -1.0)  # every holder but those just heard
    treasurer = treasurer_of(store)
    async with running(treasurer):
        await granted(treasurer, gateway)
        treasurer.hear(gateway.address, wanting(GRANT, holder="g2"))
        await until(lambda: store.charged() == 2 * GRANT)
    pot = store.treasury.pot(SERVICE, Window.DAY, time.time())
    assert (pot.closed, "g1" in pot.shares) == (GRANT, False)


async def test_who_leads_again_begins_to_listen_anew(
    store: Store, gateway: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    treasurer = treasurer_of(store)
    async with running(treasurer):
        await granted(treasurer, gateway)
        treasurer.hear(gateway.address, wanting(GRANT, holder="ends"))
    monkeypatch.setattr(treasurers, "SILENT_SECONDS", 0.0)  # another has led for that long
    async with running(treasurer):
        await until(lambda: not treasurer.problem)
        before = len(gateway.got)
        treasurer.hear(gateway.address, wanting(GRANT, holder="g2"))
        await until(lambda: len(gateway.got) > before)
    pot = store.treasury.pot(SERVICE, Window.DAY, time.time())
    assert (pot.closed, set(pot.shares)) == (0, {"g1", "g2"})


async def test_whoever_shows_a_budget_is_told_of_its_changes(
    store: Store, gateway: Mailbox
) -> None:
    told: list[tuple[str, bool]] = []
    treasurer = treasurer_of(store, on_change=lambda *change: told.append(change))
    async with running(treasurer):
        await granted(treasurer, gateway)
        spent = wanting(0, DOLLAR, "g1", line(gateway, spent=GRANT))
        treasurer.hear(gateway.address, spent)
        await until(lambda: told == [(SERVICE, False)])
        treasurer.hear(gateway.address, wanting(DOLLAR))
        await until(lambda: told == [(SERVICE, False), (SERVICE, True)])
    stand = treasurer.stand(SERVICE, {Window.DAY: DOLLAR}, time.time())
    assert stand is not None
    assert stand.full is Window.DAY
    assert stand.ends > time.time()
    raised = treasurer.stand(SERVICE, {Window.DAY: 3 * DOLLAR}, time.time())
    assert raised is not None
    assert raised.full is None, "a higher limit counts at once"
