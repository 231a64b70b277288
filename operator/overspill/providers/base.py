"""What every provider module offers, and how its attempts fail.

ProviderError          base
├── RequestRefused     it says that the request is wrong; another model may take it
├── ProviderUnusable   this provider, for now: another one may answer
└── AnswerBroken       the answer ended before its end
"""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Account:
    """Where to send a request, and as whom.

    :param connect: seconds for a connection, TLS included.
    :param first_byte: seconds from the sent request to the first content.
    :param idle: seconds between two pieces.
    """

    provider: str
    url: str
    secret: str = field(repr=False)
    renames_max_tokens: bool
    connect: float
    first_byte: float
    idle: float


class ProviderError(Exception):
    """Base of all below. The text never holds a header, a key or a prompt."""


class RequestRefused(ProviderError):
    """The provider says that the request is wrong.

    :param status: 4xx to pass on.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ProviderUnusable(ProviderError):
    """The provider did not answer, or not with an answer.

    :param cooldown: seconds in which nothing should be sent there.
    """

    def __init__(self, message: str, cooldown: float = 0.0) -> None:
        super().__init__(message)
        self.cooldown = cooldown


class AnswerBroken(ProviderError):
    """The connection ended, or was silent, in the middle of an answer."""


class Answer(Protocol):
    """A 2xx answer whose body is still to come."""

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""

    async def read(self, seconds: float) -> bytes:
        """Return the next piece, ``b""`` at the end.

        :param seconds: without a byte.
        :raises AnswerBroken: when it ends before its end.
        """

    def close(self) -> None:
        """End it; an unfinished one is cancelled at the provider."""
