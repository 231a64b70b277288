"""Money for requests that spill: from the purse at once, or from the operator within a second.

Without it a request stays local, as if the provider could not be used: the bill never passes a
budget, also when the operator is away.
"""

import asyncio
import uuid
from collections.abc import Callable

from overspill.ledger.messages import Grants, Statement
from overspill.ledger.purse import Accounts, Purse, Refusal, Reservation

GRANT_SECONDS = 1.0  # that a request waits for money, at all providers together


class NoFunds(Exception):
    """There is no money for a request at a provider; the text names the account."""

    def __init__(self, provider: str, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.provider, self.reason = provider, reason


class Funds:
    """The money of one gateway process.

    :param clock: monotonic seconds.
    :param on_want: called when a request waits for money.
    """

    def __init__(self, clock: Callable[[], float], on_want: Callable[[], None]) -> None:
        # Of this process: a container that starts anew in its pod knows nothing of the last one.
        self._purse = Purse(uuid.uuid4().hex[:16])
        self._clock, self._on_want = clock, on_want
        self._heard = asyncio.Event()

    async def reserve(
        self, provider: str, accounts: Accounts, worst: int, waited: float = 0.0
    ) -> Reservation:
        """Set aside what a request may cost at most.

        :param provider: ``namespace/name``, for the error.
        :param worst: nano-dollars.
        :param waited: seconds that the request has waited for money already.
        :raises NoFunds: when a budget has no room for it, or no operator answers in time.
        """
        held = self._try(provider, accounts, worst)
        if held is not None:
            return held
        self._purse.want(accounts, worst)
        try:
            self._on_want()
            async with asyncio.timeout(max(0.0, GRANT_SECONDS - waited)):
                return await self._granted(provider, accounts, worst)
        except TimeoutError:
            message = f"no money was granted within {GRANT_SECONDS:.0f} s, so it was not sent"
            raise NoFunds(provider, Refusal.UNANSWERED, message) from None
        finally:
            self._purse.give_up(accounts, worst)

    def settle(self, held: Reservation, cost: int) -> None:
        """Charge what a request has cost, in nano-dollars, and free the rest."""
        self._purse.settle(held, cost)

    def statement(self) -> Statement | None:
        """Return what the operator should hear, None while nothing is wanted or held."""
        return self._purse.statement(self._clock())

    def give_back(self) -> None:
        """Keep only what requests that are under way may cost."""
        self._purse.give_back()

    def hear(self, grants: Grants) -> None:
        """Take the operator's answer; those who wait look again, in the order they came."""
        self._purse.hear(grants, self._clock())
        self._heard.set()
        self._heard = asyncio.Event()

    async def _granted(self, provider: str, accounts: Accounts, worst: int) -> Reservation:
        while True:
            await self._heard.wait()
            held = self._try(provider, accounts, worst)
            if held is not None:
                return held

    def _try(self, provider: str, accounts: Accounts, worst: int) -> Reservation | None:
        """Reserve; None when it is worth to wait.

        :raises NoFunds: when it is not.
        """
        now = self._clock()
        held = self._purse.reserve(accounts, worst, now)
        spent = None if held else self._purse.refused(accounts, worst, now)
        if spent is not None:
            account, window = spent
            message = f"the budget of {account} for this {window} has no room for it"
            raise NoFunds(provider, Refusal.SPENT, message)
        return held
