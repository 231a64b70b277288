"""What every provider module offers, and how its attempts fail.

ProviderError          base
├── Unsupported        its API has no words for the request; known before anything is sent
├── RequestRefused     it says that the request is wrong; another model may take it
├── ProviderUnusable   this provider, for now: another one may answer
└── AnswerBroken       the answer ended before its end
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from overspill.api.provider import ModelInput, ProviderType

Fields = dict[str, Any]

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds, whatever Retry-After says
MAX_ANSWER = 64 * 1024 * 1024  # bytes of one unary answer (embeddings of a full batch)


class Api(StrEnum):
    """In whose form a client asks and is answered."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Fault(StrEnum):
    """What kept a provider from answering: the reason in a condition and in a metric."""

    KEY_REFUSED = "KeyRefused"  # 401, 403
    RATE_LIMITED = "RateLimited"  # 429
    SERVER_ERROR = "ServerError"  # 5xx, or an error inside a stream before its first content
    TIMED_OUT = "TimedOut"  # it was reached and said nothing in time
    UNREACHABLE = "Unreachable"  # no connection
    MODEL_UNKNOWN = "ModelUnknown"  # 404: its other models may well be there
    UNEXPECTED_ANSWER = "UnexpectedAnswer"  # something that is no answer of this API
    NOT_FINISHED = "NotFinished"  # it tried to answer this request; it may well answer others


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked, in OpenAI's form.

    :param path: below the base URL, for example ``/chat/completions``.
    :param fields: the body; the model is the client's name for it.
    :param messages: the body as it came, from a client of Anthropic's Messages API.
    """

    path: str
    fields: Fields
    messages: Fields | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Where to send a request, and as whom.

    :param connect: seconds for a connection, TLS included.
    :param first_byte: seconds from the sent request to the first content.
    :param idle: seconds between two pieces.
    :param azure_api_version: a date, where Azure's deployments are asked by their URLs.
    :param inputs: that the model takes, where each has its own.
    :param destinations: hosts and ports that the key may be sent to.
    """

    provider: str
    type: ProviderType
    url: str
    secret: str = field(repr=False)
    connect: float
    first_byte: float
    idle: float
    azure_api_version: str = ""
    inputs: frozenset[ModelInput] = frozenset()
    destinations: Sequence[tuple[str, int]] = ()


class ProviderError(Exception):
    """Base of all below. The text never holds a header, a key or a prompt.

    ``may_bill``: the provider may have computed an answer all the same.
    """

    may_bill = False


class Unsupported(ProviderError):
    """The provider's API cannot express the request.

    :param field: of the request, as its client wrote it: ``messages[2].content[0]``.
    :param why: what is missing, or what may be sent instead.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


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
    :param told: the provider has said so itself.
    :param may_bill: it may have computed an answer all the same.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        cooldown: float = SHORTEST_PAUSE,
        *,
        told: bool = False,
        may_bill: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault, self.cooldown, self.told, self.may_bill = fault, cooldown, told, may_bill


class AnswerBroken(ProviderError):
    """The connection ended, or was silent, in the middle of an answer."""

    def __init__(self, message: str, fault: Fault = Fault.SERVER_ERROR) -> None:
        super().__init__(message)
        self.fault = fault


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
