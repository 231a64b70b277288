"""A gateway's side of budgets: reserve the worst case, send, settle on what it has cost.

What may be spent comes from the operator, per account and window, as one cumulative amount. A
request is sent only when every account that it is charged to has room for its worst case. Without
hearing from the operator a grant ends by the monotonic clock; then nothing more may be sent.

Pure: time is an argument, in monotonic seconds; money is in integer nano-dollars.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from overspill.api.budget import Window
from overspill.ledger.messages import (
    MAX_LINES,
    MAX_NANO,
    SLICES,
    Grant,
    Grants,
    Limits,
    Line,
    Statement,
    Want,
)

Accounts = Mapping[str, Limits]  # what a request is charged to; account: its limits
IDLE = 5.0  # seconds without a request after which what is left is given back
REPEAT = 60.0  # seconds after which what is known of what was spent is stated again
FRESH = 1.0  # seconds that the operator's word on what is left counts
KEPT = 3  # windows of an account that are remembered: a clock may step back, and messages be late


class Refusal(StrEnum):
    """Why there is no money for a request."""

    SPENT = "BudgetSpent"  # the operator says that there is no room
    UNANSWERED = "LedgerUnavailable"  # the operator says nothing


@dataclass(slots=True, eq=False)
class Pot:
    """What we have of one account in one window."""

    account: str
    window: Window
    begin: int
    seen: int = 0  # number of the newest grant
    allowed: int = 0
    spent: int = 0
    reserved: int = 0
    until: float = 0.0  # nothing is sent after it
    used: float = float("-inf")  # the last reservation
    last: int = 0  # its worst case
    room: int = 0  # what others could still get
    told: float = float("-inf")  # when the operator said so
    known: tuple[int, int] = (0, 0)  # allowed and spent as the operator has written them down

    @property
    def free(self) -> int:
        """What can still be reserved."""
        return self.allowed - self.spent - self.reserved

    @property
    def busy(self) -> bool:
        """Whether the operator does not know all, or holds something for us."""
        return self.free != 0 or self.reserved != 0 or self.known != (self.allowed, self.spent)


@dataclass(slots=True, eq=False)
class Reservation:
    """The worst case of one request, until it is settled."""

    worst: int
    pots: tuple[Pot, ...]
    open: bool = True


@dataclass(slots=True)
class _Waiting:
    limits: Limits
    amounts: list[int] = field(default_factory=list)


class Purse:
    """All that one gateway process holds.

    :param holder: names the process; another one after a restart.
    """

    def __init__(self, holder: str) -> None:
        """Begin with nothing."""
        self.holder = holder
        self._pots: dict[tuple[str, Window, int], Pot] = {}
        self._current: dict[tuple[str, Window], Pot] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._limits: dict[str, Limits] = {}  # of accounts that were used

    # a request

    def reserve(self, accounts: Accounts, worst: int, now: float) -> Reservation | None:
        """Set aside a request's worst case in all its accounts, or in none (None)."""
        pots = [self._current.get(key) for key in _keys(accounts)]
        found = [pot for pot in pots if pot is not None and now < pot.until and pot.free >= worst]
        if len(found) < len(pots):
            return None
        for pot in found:
            pot.reserved += worst
            pot.used, pot.last = now, worst
            self._limits[pot.account] = accounts[pot.account]
        return Reservation(worst, tuple(found))

    def settle(self, reservation: Reservation, cost: int) -> None:
        """Replace a worst case by what it has cost; a second time does nothing.

        A provider that charges more than the worst case is charged here, too.
        """
        if not reservation.open:
            return
        reservation.open = False
        for pot in reservation.pots:
            pot.reserved -= reservation.worst
            pot.spent += cost
            pot.allowed = max(pot.allowed, pot.spent + pot.reserved)

    def refused(self, accounts: Accounts, worst: int, now: float) -> tuple[str, Window] | None:
        """Return the budget that has no room by the operator's newest word, None if none."""
        for key in _keys(accounts):
            pot = self._current.get(key)
            if pot and now < min(pot.told + FRESH, pot.until) and pot.free + pot.room < worst:
                return pot.account, pot.window
        return None

    def want(self, accounts: Accounts, worst: int) -> None:
        """Want money for a request that waits, until ``give_up`` with the same values."""
        for account, limits in accounts.items():
            waiting = self._waiting.setdefault(account, _Waiting(limits))
            waiting.limits = limits
            waiting.amounts.append(worst)

    def give_up(self, accounts: Accounts, worst: int) -> None:
        """Want no money for that request any more: it has got it, or waited too long."""
        for account in accounts:
            amounts = self._waiting[account].amounts
            amounts.remove(worst)
            if not amounts:
                del self._waiting[account]

    # the operator

    def statement(self, now: float) -> Statement | None:
        """Return what the operator should hear, None while it knows all and nothing is wanted.

        What is more than a few requests need, and all that was not used for a while, is given back
        by this. Who has spent is heard at least every ``REPEAT`` seconds: a holder that says
        nothing is taken for dead, and a record that was lost is mended by what holders say.
        """
        for pot in self._pots.values():
            self._return_surplus(pot, now)
        wants = {account: self._want(account) for account in self._wanting(now)}
        current = {id(pot) for pot in self._current.values() if pot.account in wants}
        told = [pot for pot in self._pots.values() if pot.busy or id(pot) in current]
        again = [pot for pot in self._pots.values() if pot.spent and now - pot.told >= REPEAT]
        lines = [_line(pot) for pot in dict.fromkeys(told + again)][:MAX_LINES]
        if not lines and not wants:
            return None
        return Statement(holder=self.holder, lines=lines, wants=wants)

    def _return_surplus(self, pot: Pot, now: float) -> None:
        """Need less of what is held; settled requests leave most of their worst cases over."""
        if pot.account not in self._waiting:
            limit = self._limits.get(pot.account, {}).get(pot.window, 0)
            soon = 0 if now - pot.used >= IDLE else limit // SLICES + pot.last
            pot.allowed = min(pot.allowed, pot.spent + pot.reserved + soon)
        if pot.reserved == 0 and now >= pot.until:
            pot.allowed = pot.spent

    def give_back(self) -> None:
        """Keep only what requests have reserved."""
        for pot in self._pots.values():
            pot.allowed = pot.spent + pot.reserved
            pot.used = float("-inf")

    def hear(self, grants: Grants, now: float) -> None:
        """Take the operator's answer; one that is older than another changes no amount."""
        if grants.holder == self.holder:
            for grant in grants.grants:
                self._take(grant, now)

    def _take(self, grant: Grant, now: float) -> None:
        key = (grant.account, grant.window, grant.begin)
        pot = self._pots.get(key) or self._begin(key)
        if pot is None:
            return
        if grant.seconds > 0:
            self._current[grant.account, grant.window] = pot
        if grant.number > pot.seen:
            pot.seen = grant.number
            pot.allowed = max(grant.allowed, pot.spent + pot.reserved)
        if grant.number >= pot.seen:
            pot.until, pot.known = now + grant.seconds, (grant.allowed, grant.spent)
            pot.room, pot.told = grant.room, now

    def _begin(self, key: tuple[str, Window, int]) -> Pot | None:
        """Return a new pot; None for a window before those that are remembered.

        What was spent of a pot must not be forgotten while somebody may still speak of it.
        """
        begins = sorted(begin for *rest, begin in self._pots if tuple(rest) == key[:2])
        if len(begins) >= KEPT and key[2] < begins[0]:
            return None
        for begin in begins[: max(0, len(begins) + 1 - KEPT)]:
            if not self._pots[*key[:2], begin].busy:
                del self._pots[*key[:2], begin]
        pot = self._pots[key] = Pot(*key)
        return pot

    def _wanting(self, now: float) -> set[str]:
        """Return accounts that requests wait for, or that are in use and may soon need more."""
        used = {pot.account for pot in self._current.values() if now - pot.used < IDLE}
        return used | self._waiting.keys()

    def _want(self, account: str) -> Want:
        waiting = self._waiting.get(account)
        if waiting is None:
            return Want(limits=self._limits[account], waiting=0, least=0)
        total, least = sum(waiting.amounts), min(waiting.amounts)
        return Want(limits=waiting.limits, waiting=min(total, MAX_NANO), least=min(least, MAX_NANO))


def _keys(accounts: Accounts) -> Iterator[tuple[str, Window]]:
    return ((account, window) for account, limits in accounts.items() for window in limits)


def _line(pot: Pot) -> Line:
    return Line(
        account=pot.account,
        window=pot.window,
        begin=pot.begin,
        seen=pot.seen,
        allowed=pot.allowed,
        spent=pot.spent,
        reserved=pot.reserved,
    )
