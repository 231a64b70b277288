"""The operator's side of budgets: who may spend how much of which account in which window.

Every account has one pot for each calendar window. Of a pot each gateway holds a share: what it may
spend of it in all. The shares together never exceed the budget, and no gateway spends more than
its share; so whatever is lost, repeated, overtaken or killed, the budget is kept. A share grows by
a numbered grant alone, which is written down before it is handed out, and shrinks only when its
holder, knowing the newest grant, says that it needs less. The share of a holder that is gone
stays charged as a whole: what it had not reported may have been spent.

Pure: time is an argument, in seconds since the epoch; money is in integer nano-dollars.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from overspill.api.budget import Window
from overspill.ledger.messages import SLICES, Grant, Grants, Line, Statement, Want
from overspill.ledger.windows import bounds

RECORD = "record"  # the ConfigMap's key
PLENTY = 4  # slices that must be left, or nothing is given ahead of need
LIFETIME = 30.0  # seconds that a grant may be used without hearing from us again
KEPT_SECONDS = 3 * 3600.0  # that a window is remembered: clocks step, and requests end late

# What reading something else raises: json takes Infinity, and a begin may be in no calendar.
_NO_RECORD = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, OSError, RecursionError,
)  # fmt: skip

Id = tuple[str, Window, int]  # of a pot: account, window, begin


class BadRecord(ValueError):
    """A record that cannot be read; the text says where. Nothing may be granted on it."""


@dataclass(slots=True)
class Share:
    """What one holder has of a pot."""

    allowed: int = 0
    spent: int = 0
    number: int = 0  # of the newest grant
    reserved: int = 0  # as last heard; not written down


@dataclass(slots=True)
class Pot:
    """One account in one window."""

    limit: int = 0  # as last heard
    closed: int = 0  # charged for holders that are gone
    refused_at: int | None = None  # the limit under which the last request did not fit any more
    shares: dict[str, Share] = field(default_factory=dict)

    @property
    def charged(self) -> int:
        """Spent, or in the hands of somebody who may spend it."""
        return self.closed + sum(share.allowed for share in self.shares.values())

    @property
    def spent(self) -> int:
        """Spent for certain, or never accounted for."""
        return self.closed + sum(share.spent for share in self.shares.values())

    @property
    def room(self) -> int:
        """What can still be granted."""
        return max(0, self.limit - self.charged)

    def full_for(self, limit: int) -> bool:
        """Whether the last request that needed more was refused under this limit."""
        return self.refused_at == limit


class Treasury:
    """All accounts of a release."""

    def __init__(self) -> None:
        """Begin with nothing spent; ``read`` begins with a record."""
        self._pots: dict[Id, Pot] = {}
        self.revision = 0  # grows with every record
        self.changed = False  # since the last record

    # what holders say

    def hear(self, statement: Statement, now: float) -> Grants:
        """Take a statement; return its answer, to be sent when all of this is written down."""
        for line in statement.lines:
            self._report(statement.holder, line, now)
        ids = {(line.account, line.window, line.begin): None for line in statement.lines}
        for account, want in statement.wants.items():
            for window, limit in want.limits.items():
                id_ = (account, window, bounds(window, now)[0])
                self._want(statement.holder, id_, want, limit)
                ids[id_] = None
        return Grants(
            holder=statement.holder, grants=[self._answer(statement, id_, now) for id_ in ids]
        )

    def _report(self, holder: str, line: Line, now: float) -> None:
        """Note what a holder has spent and what it gives back."""
        id_ = (line.account, line.window, line.begin)
        if id_ not in self._pots and _over(id_, now):
            return  # forgotten
        share = self._share(id_, holder)
        before = (share.allowed, share.spent, share.number)
        share.spent, share.reserved = max(share.spent, line.spent), line.reserved
        if line.seen > share.number:  # the record is older than what the holder was granted
            share.number, share.allowed = line.seen, max(share.allowed, line.allowed)
        elif line.seen == share.number:  # without a grant it only falls: the lower is the newer
            share.allowed = min(share.allowed, line.allowed)
        # Only a provider that charges more than the worst case brings it above its share.
        share.allowed = max(share.allowed, share.spent, line.spent + line.reserved)
        self.changed |= before != (share.allowed, share.spent, share.number)

    def _want(self, holder: str, id_: Id, want: Want, limit: int) -> None:
        """Grant what is wanted, as far as there is room."""
        share, pot = self._share(id_, holder), self._pots[id_]
        pot.limit = limit
        free = share.allowed - share.spent - share.reserved
        slice_ = limit // SLICES
        if not want.waiting and (free >= slice_ // 2 or pot.room < PLENTY * slice_):
            return
        more = min(max(want.waiting, slice_) - free, pot.room)
        if free + more < want.least:
            if want.least <= limit or not pot.room:  # or it alone is too large: others may fit
                self.changed |= pot.refused_at != limit
                pot.refused_at = limit
        elif more > 0:
            share.allowed, share.number = share.allowed + more, share.number + 1
            pot.refused_at, self.changed = None, True

    def _answer(self, statement: Statement, id_: Id, now: float) -> Grant:
        account, window, begin = id_
        pot = self._pots.get(id_, Pot())
        share = pot.shares.get(statement.holder)
        if share is None:  # long over: what it says is taken as it is
            share = next(
                Share(line.allowed, line.spent, line.seen)
                for line in statement.lines
                if (line.account, line.window, line.begin) == id_
            )
        left = bounds(window, begin)[1] - now if begin <= now else 0.0  # a clock stepped back
        return Grant(
            account=account,
            window=window,
            begin=begin,
            number=share.number,
            allowed=share.allowed,
            spent=share.spent,
            seconds=max(0.0, min(LIFETIME, left)),
            room=pot.room,
        )

    def _share(self, id_: Id, holder: str) -> Share:
        return self._pots.setdefault(id_, Pot()).shares.setdefault(holder, Share())

    def close(self, holder: str) -> None:
        """Let a holder go that will not be heard again; its shares stay charged.

        One that is heard again all the same is charged twice for what it held, never too little.
        """
        for pot in self._pots.values():
            share = pot.shares.pop(holder, None)
            if share is not None:
                pot.closed += share.allowed

    @property
    def holders(self) -> set[str]:
        """All that have a share."""
        return {holder for pot in self._pots.values() for holder in pot.shares}

    # what others ask

    def current(self, now: float) -> Iterator[tuple[str, Window, Pot]]:
        """Yield the pots of the windows that this moment is in."""
        begins = {window: bounds(window, now)[0] for window in Window}
        for (account, window, begin), pot in self._pots.items():
            if begin == begins[window]:
                yield account, window, pot

    def pot(self, account: str, window: Window, now: float) -> Pot:
        """Return the pot of this moment's window, an empty one where nobody has asked."""
        return self._pots.get((account, window, bounds(window, now)[0]), Pot())

    # the record

    def record(self, now: float) -> str:
        """Return all that must survive; windows that are long over are left out, and forgotten."""
        self._pots = {id_: pot for id_, pot in self._pots.items() if not _over(id_, now)}
        pots = [
            [*id_, pot.limit, pot.closed, pot.refused_at,
             {h: [s.allowed, s.spent, s.number] for h, s in pot.shares.items()}]
            for id_, pot in self._pots.items()
        ]  # fmt: skip
        return json.dumps({"revision": self.revision + 1, "pots": pots}, separators=(",", ":"))

    def written(self) -> None:
        """Note that the newest record is safe."""
        self.revision, self.changed = self.revision + 1, False

    @classmethod
    def read(cls, text: str) -> "Treasury":
        """Return what a record says.

        :param text: of ``record``; "" stands for a release that has never spent anything.
        :raises BadRecord: when it is none.
        """
        treasury = cls()
        if not text:
            return treasury
        try:
            content = json.loads(text)
            treasury.revision = int(content["revision"])
            treasury._pots = dict(_parse(*row) for row in content["pots"])
        except _NO_RECORD as error:
            raise BadRecord(f"not a record of the ledger ({type(error).__name__})") from error
        return treasury


def _parse(
    account: str, window: str, begin: int, limit: int, closed: int, refused_at: int | None,
    shares: dict[str, Any],
) -> tuple[Id, Pot]:  # fmt: skip
    held = {holder: _share(*numbers) for holder, numbers in shares.items()}
    id_ = (str(account), Window(window), int(begin))
    if bounds(*id_[1:])[0] != id_[2]:
        raise ValueError("no window begins then")
    refused = None if refused_at is None else _amount(refused_at)
    return id_, Pot(_amount(limit), _amount(closed), refused, held)


def _share(allowed: Any, spent: Any, number: Any) -> Share:
    return Share(_amount(allowed), _amount(spent), _amount(number))


def _amount(number: Any) -> int:
    """Read an amount or a count; one below zero would be room that nobody gave."""
    if int(number) < 0:
        raise ValueError("less than nothing")
    return int(number)


def _over(id_: Id, now: float) -> bool:
    """Whether a window ended so long ago that not even a wrong clock can mean it."""
    _, window, begin = id_
    return now > bounds(window, begin)[1] + KEPT_SECONDS
