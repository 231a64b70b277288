"""What gateways and the operator tell each other about money. All amounts in nano-dollars.

A gateway states what it holds, what it has spent and what it wants; the operator answers how much
it may spend in all. Amounts are cumulative within a window, so a message that is lost, repeated or
overtaken changes nothing.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from overspill.api.budget import Window

# What an account's name begins with, before a slash and "namespace/name", or a key's Secret.
OF_PROVIDER, OF_SERVICE, OF_KEY = "provider", "service", "key"
Limits = dict[Window, int]  # of one account
MAX_NANO = 2**62
MAX_ACCOUNT = 330  # characters; the names of a namespace and an object have at most 63 and 253
MAX_LINES = 20_000
SLICES = 200  # a grant is a 200th of the budget, or what waits, where that is more

AccountName = Annotated[str, Field(max_length=MAX_ACCOUNT)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Line(_Message):
    """What a holder has of one account in one window."""

    account: AccountName
    window: Window
    begin: int  # of the window, seconds since the epoch, as the operator said
    seen: int = Field(ge=0)  # number of the newest grant
    allowed: int = Field(ge=0, le=MAX_NANO)  # may be spent in this window in all
    spent: int = Field(ge=0, le=MAX_NANO)
    reserved: int = Field(ge=0, le=MAX_NANO)  # worst case of what is under way


class Want(_Message):
    """What a holder wants of one account."""

    limits: dict[Window, int]  # the account's budget, as its object says
    waiting: int = Field(ge=0, le=MAX_NANO)  # worst case of all requests that wait for money
    least: int = Field(ge=0, le=MAX_NANO)  # of the one that needs the least


class Statement(_Message):
    """All that one holder says at one moment."""

    holder: str = Field(min_length=1, max_length=64)
    lines: list[Line] = Field(default_factory=list, max_length=MAX_LINES)
    wants: dict[AccountName, Want] = Field(default_factory=dict, max_length=MAX_LINES)

    @property
    def urgent(self) -> bool:
        """Whether requests wait for money."""
        return any(want.waiting for want in self.wants.values())


class Grant(_Message):
    """What a holder may spend of one account in one window."""

    account: AccountName
    window: Window
    begin: int
    number: int  # grows with each change of ``allowed`` by the operator
    allowed: int
    spent: int  # as reported, and written down
    seconds: float  # from now, after which nothing may be sent any more
    room: int  # what others may still get


class Grants(_Message):
    """The answer to a statement."""

    holder: str
    grants: list[Grant] = Field(max_length=MAX_LINES)
