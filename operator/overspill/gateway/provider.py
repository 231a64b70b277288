"""A provider as the gateway knows it: its key, its prices, and whether it answers.

One that fails rests, and what would go there goes to the next provider or waits for a replica.
How long, it says itself (Retry-After), or each rest is twice the one before, until it has
answered again. When the rest is over any request may try. The operator is told of a failure that
lasts; a single one is gone before anybody could read of it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from overspill.api.provider import InferenceProvider
from overspill.ledger import pricelist
from overspill.ledger.prices import Rates
from overspill.providers.base import Fault, ProviderUnusable

LONGEST_REST = 60.0  # seconds
LONG_REST = 5.0  # seconds; the operator is told of these at once
FAULT_MEMORY = 60.0  # seconds after a rest in which nobody asked again: then nothing is known


@dataclass(slots=True, eq=False)
class Provider:
    """An InferenceProvider, its key, and whether it can be used now. Times in monotonic seconds."""

    resource: InferenceProvider
    secret: str = field(default="", repr=False)
    reason: str = "SecretNotFound"  # of the key
    message: str = "the Secret was not read yet"
    cooling_until: float = 0.0
    failure: ProviderUnusable | None = None  # the newest, None since an answer
    rests: int = 0  # in a row
    rates: dict[str, Rates] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return self.resource.key

    def usable_for(self, namespace: str, model: str, now: float) -> bool:
        """Whether a service of that namespace may send this model's requests here now."""
        return (
            bool(self.secret)
            and self.cooling_until <= now
            and model in self.rates
            and self.resource.allows(namespace)
        )

    def configure(self, resource: InferenceProvider) -> None:
        """Take a changed object; it gets its chance anew."""
        if resource.spec != self.resource.spec:
            self.forgive()
        self.resource = resource
        # The operator's status changes on the day on which a list price does, and so we are here.
        self.rates = pricelist.rates_of(resource.spec, datetime.now(UTC).date())

    def set_key(self, secret: str, reason: str, message: str) -> None:
        """Take what became of the key; with another one it gets its chance anew."""
        if secret != self.secret:
            self.forgive()
        self.secret, self.reason, self.message = secret, reason, message

    def failed(self, failure: ProviderUnusable, now: float) -> None:
        """Let it rest. Requests that were under way together and fail count as one failure."""
        if self.cooling_until <= now:
            self.rests += 1
        rest = failure.cooldown
        if failure.fault is not Fault.RATE_LIMITED:
            rest = min(LONGEST_REST, rest * 2 ** min(self.rests - 1, 6))
        self.cooling_until = max(self.cooling_until, now + rest)
        self.failure = failure

    def answered(self, now: float) -> None:
        """Forget its failures, unless it rests: then the answer was to an older request."""
        if self.cooling_until <= now:
            self.forgive()

    def forgive(self) -> None:
        """Give it a new chance, now."""
        self.failure, self.rests, self.cooling_until = None, 0, 0.0

    def readiness(self, now: float) -> tuple[bool, str, str]:
        """Return whether it can be used, and a condition's reason and message."""
        if not self.secret:
            return False, self.reason, self.message
        failure = self.failure
        lasting = self.rests > 1 or (failure is not None and failure.cooldown >= LONG_REST)
        if failure is not None and lasting and now < self.cooling_until + FAULT_MEMORY:
            return False, failure.fault, f"{failure}; tried again at least once a minute"
        return True, self.reason, self.message
