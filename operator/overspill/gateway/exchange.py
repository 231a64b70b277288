"""One request on its way: what is known when it arrives, and what became of it."""

import os
from dataclasses import dataclass, field

from overspill.api.keys import ClientKey
from overspill.api.provider import ModelInput, ProviderType
from overspill.gateway.balance import Replica
from overspill.gateway.call import Call
from overspill.gateway.errors import ApiError, Headers
from overspill.gateway.prefix import Blocks
from overspill.gateway.reply import Reply, where
from overspill.gateway.size import expected_tokens
from overspill.gateway.spill import Facts
from overspill.gateway.state import Service
from overspill.ledger.prices import Usage
from overspill.providers.base import Unsupported
from overspill.providers.client import unsupported

CLIENT_LEFT = 499  # for logs and metrics: nobody was there to read a status


@dataclass(slots=True, eq=False)
class Exchange:
    """A request that passed authentication, the checks of its body, and resolving.

    :param may_leave: neither the service nor the request's header forbids it.
    :param arrived: monotonic seconds.
    :param blocks: of the prompt, where one replica may have more of it cached than another.
    """

    key: ClientKey
    service: Service
    call: Call
    reply: Reply
    may_leave: bool
    arrived: float
    blocks: Blocks = ()
    seen: Facts | None = None  # by the newest decision, None where a slot was free
    # where it runs
    destination: str = ""
    reason: str = ""
    sent: float = 0.0  # seconds after arrival, the newest attempt
    # attempts that failed
    tried: set[str] = field(default_factory=set)  # providers, those without money for it, too
    sent_failures: int = 0  # replicas that may have read the request
    unsent_failures: int = 0  # replicas that were not reached
    last_failure: str = ""
    waited_for_money: float = 0.0  # seconds, at all providers
    unfunded: str = ""  # why a provider could not be paid
    refusal: ApiError | None = None  # what a provider found wrong; another model may not
    verdict: ApiError | None = None  # what an engine found wrong; one other may not
    refused_by: Replica | None = None  # that engine
    expected: int | None = None  # tokens, once they are counted
    unsayable: dict[tuple[ProviderType, frozenset[ModelInput]], Unsupported | None] = field(
        default_factory=dict
    )
    # what came back
    status: int = 0
    wait: float | None = None  # in the queue, until a replica was free for the first time
    usage: Usage | None = None
    cost: int = 0  # nano-dollars
    first_token: float | None = None  # seconds after arrival
    last_token: float = 0.0
    chunks: int = 0  # of a stream with content; of a whole answer its size in tokens, guessed
    token_seconds: float | None = None  # mean time between two tokens

    def headers(self) -> Headers:
        """Return the headers that say where it ran and why there."""
        return where(self.destination, self.reason)

    def sent_to(self, destination: str, reason: str, now: float) -> None:
        """Begin an attempt."""
        self.destination, self.reason, self.sent = destination, reason, now - self.arrived

    def expected_tokens(self) -> int:
        """Return the tokens with which it counts until it has ended; counted once."""
        if self.expected is None:
            self.expected = expected_tokens(self.call)
        return self.expected

    def unsupported_by(
        self, kind: ProviderType, inputs: frozenset[ModelInput]
    ) -> Unsupported | None:
        """Return what an API cannot express of the request; looked for once.

        :param inputs: that the model takes, where each has its own.
        """
        if (kind, inputs) not in self.unsayable:
            self.unsayable[kind, inputs] = unsupported(kind, self.call.request, inputs)
        return self.unsayable[kind, inputs]


def new_request_id() -> str:
    """Return an id that no client chose: 128 random bits, as hexadecimal digits."""
    return os.urandom(16).hex()
