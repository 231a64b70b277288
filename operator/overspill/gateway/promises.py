"""Whom a full queue has told when to come back, so that Retry-After is true.

Without a memory, everyone whom a full queue refuses would be told the same time, come back at once,
and be refused again. So those who were refused stand in a line: each is told when the line's places
before its own are taken, and a place of the queue is kept for it when that time has come. A promise
is to the key: any request of it may redeem it. Pure; time is an argument.
"""

from bisect import bisect_right, insort
from collections import Counter
from operator import itemgetter

from overspill.api.keys import ClientKey

KEPT_SECONDS = 3.0  # that a place is kept before it is due, and after it for one who does not come

_due = itemgetter(0)


class Promises:
    """The line of one service.

    :param limit: promises that are remembered; those beyond it are not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: list[tuple[float, ClientKey]] = []  # when, in monotonic seconds, and to whom
        self.by_key: Counter[ClientKey] = Counter()  # how many are to each

    def __len__(self) -> int:
        return len(self._line)

    def make(self, key: ClientKey, due: float) -> None:
        """Remember that a key was told to come back at ``due``."""
        if len(self._line) < self._limit:
            insort(self._line, (due, key), key=_due)
            self.by_key[key] += 1

    def redeem(self, key: ClientKey, now: float) -> bool:
        """Take back the oldest promise to a key that is due; whether there was one.

        Those who did not come are forgotten here, or each request would look at all of them.
        """
        self._forget(now)
        for place in range(bisect_right(self._line, now, key=_due)):
            if self._line[place][1].id == key.id:
                self._drop(place, place + 1)
                return True
        return False

    def kept(self, now: float) -> int:
        """Return for how many a place is kept now; those who did not come are forgotten."""
        self._forget(now)
        return bisect_right(self._line, now + KEPT_SECONDS, key=_due)

    def _forget(self, now: float) -> None:
        self._drop(0, bisect_right(self._line, now - KEPT_SECONDS, key=_due))

    def _drop(self, start: int, end: int) -> None:
        for _, key in self._line[start:end]:
            self.by_key[key] -= 1
            if not self.by_key[key]:
                del self.by_key[key]
        del self._line[start:end]
