"""A provider as the gateway knows it: its key, its prices, its limits, and whether it answers.

A request goes there with a permit, which counts it in the limits and tells the breaker what became
of it. Where there is none to be had, what would go there goes to the next provider or waits for a
replica. A model that it does not have rests by itself: the others are asked all the same. The
operator is told of a failure that lasts; a single one is gone before anybody could read of it.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from overspill.api.provider import InferenceProvider
from overspill.gateway.breaker import Breaker
from overspill.gateway.rate import Limits, Shortage, Throttle
from overspill.gateway.share import Share
from overspill.ledger import pricelist
from overspill.ledger.prices import Rates
from overspill.providers.base import Fault, ProviderUnusable

LONG_REST = 5.0  # seconds; the operator is told of these at once
FAULT_MEMORY = 60.0  # seconds after a rest in which nobody asked again: then nothing is known
BURST = 5.0  # seconds of its limits per minute that may be used at once
UNKNOWN_REMEDY = "check spec.models against the provider's list, and baseURL"
CONNECTIONS = 256  # requests at a time from one gateway, where the object sets no limit


class Hindrance(NamedTuple):
    """Why a request may not go to a provider now.

    :param seconds: until it may, as far as is known; infinite when time alone changes nothing.
    """

    provider: str
    why: str
    seconds: float = math.inf


@dataclass(slots=True, eq=False)
class Permit:
    """Leave for one request to go to a provider's model, until it is given back.

    :param began: monotonic seconds.
    :param tokens: with which it was counted.
    :param probes: the others wait for what becomes of it.
    :param sent: it was not only let go, it went.
    """

    model: str
    began: float
    tokens: int
    probes: bool = False
    sent: bool = False


@dataclass(slots=True, eq=False)
class Provider:
    """An InferenceProvider, its key, and whether it can be used now. Times in monotonic seconds.

    :param unknown: those of its models that it said it does not have.
    """

    resource: InferenceProvider
    secret: str = field(default="", repr=False)
    reason: str = "SecretNotFound"  # of the key
    message: str = "the Secret was not read yet"
    rates: dict[str, Rates] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    unknown: dict[str, Breaker] = field(default_factory=dict)
    throttle: Throttle = field(default_factory=lambda: Throttle(BURST, borrows=True))
    at_once: int = CONNECTIONS
    running: int = 0

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return self.resource.key

    def configure(self, resource: InferenceProvider, share: Share, now: float) -> None:
        """Take a changed object, which gets its chance anew, or another part of its limits."""
        if resource.spec != self.resource.spec:
            self._forgive(now)
        self.resource = resource
        # The operator's status changes on the day on which a list price does, and so we are here.
        self.rates = pricelist.rates_of(resource.spec, datetime.now(UTC).date())
        limits = resource.spec.limits
        self.throttle.configure(
            Limits(limits.requests_per_minute, limits.tokens_per_minute), share, now
        )
        self.at_once = share.slots(0, limits.concurrency) if limits.concurrency else CONNECTIONS

    def set_key(self, secret: str, reason: str, message: str, now: float) -> None:
        """Take what became of the key; with another one it gets its chance anew."""
        if secret != self.secret:
            self._forgive(now)
        self.secret, self.reason, self.message = secret, reason, message

    def _forgive(self, now: float) -> None:
        self.breaker.forgive(now)
        self.unknown.clear()

    # whether a request may go there

    def unfit_for(self, namespace: str, model: str) -> str:
        """Return why that namespace's requests for a model may not go there, "" if they may."""
        if not self.resource.allows(namespace):
            return f"its allowedNamespaces do not hold {namespace}"
        if model not in self.rates:
            return f"there is no price for {model}"
        # Clients are told, too: what to do about it stands in its conditions only.
        return "" if self.secret else f"{self.reason}, see its conditions"

    def busy_for(self, model: str, tokens: int, now: float) -> tuple[str, float] | None:
        """Return why a request must wait for its permit, and the seconds; None when it need not."""
        if (pause := self.breaker.pause(now)) > 0:
            return self._rests(pause, now), pause
        unknown = self.unknown.get(model)
        if unknown and (pause := unknown.pause(now)) > 0:
            return f"it does not have {model}, and is asked again in {pause:.0f} s", pause
        if self.running >= self.at_once:
            return f"{self.running} requests are there, this gateway's part of its limit", math.inf
        shortage = self.throttle.shortage(tokens, now)
        return (_short(shortage, tokens), shortage.seconds) if shortage else None

    def admit(self, model: str, tokens: int, now: float) -> Permit:
        """Let a request go that nothing hinders."""
        breakers = self._breakers(model)
        for breaker in breakers:
            breaker.begin(now)
        self.throttle.take(tokens, now)
        self.running += 1
        return Permit(model, now, tokens, probes=any(b.half_open for b in breakers))

    def release(self, permit: Permit, used: int | None, now: float) -> bool:
        """Take a permit back; whether others may go now, or sooner than they know.

        :param used: tokens, if that is known.
        """
        waited_for = self.running >= self.at_once or permit.probes
        self.running -= 1
        for breaker in self._breakers(permit.model):
            breaker.ended(permit.began)
        if not permit.sent:
            self.throttle.take(-permit.tokens, now, requests=-1)
        elif used is not None:
            self.throttle.take(used - permit.tokens, now, requests=0)
        return waited_for

    def has_changed_since(self, permit: Permit) -> bool:
        """Whether it rests, or was given another chance, since a request was let go."""
        return any(permit.began < breaker.until for breaker in self._breakers(permit.model))

    def answered(self, permit: Permit) -> bool:
        """Take that it answered; whether others have waited for that."""
        breakers = self._breakers(permit.model)
        probed = any(breaker.half_open for breaker in breakers)
        for breaker in breakers:
            breaker.answered(permit.began)
        return probed

    def failed(self, permit: Permit, failure: ProviderUnusable, now: float) -> None:
        """Take that it did not answer: it rests, or what rests is a model that it does not have."""
        if failure.fault is Fault.MODEL_UNKNOWN:
            self.breaker.answered(permit.began)
            breaker = self.unknown.setdefault(permit.model, Breaker())
        else:
            breaker = self.breaker
        breaker.failed(failure, permit.began, now)

    def _breakers(self, model: str) -> list[Breaker]:
        unknown = self.unknown.get(model)
        return [self.breaker, unknown] if unknown else [self.breaker]

    # what the operator is told

    def unknown_models(self, now: float) -> list[str]:
        """Return those of its models that it says again and again it does not have."""
        lasting = {model: b for model, b in self.unknown.items() if b.rests > 1}
        return [model for model, b in lasting.items() if now < b.until + FAULT_MEMORY]

    def readiness(self, now: float) -> tuple[bool, str, str]:
        """Return whether it can be used, and a condition's reason and message."""
        if not self.secret:
            return False, self.reason, self.message
        failure, rests = self.breaker.failure, self.breaker.rests
        lasting = rests > 1 or (failure is not None and failure.cooldown >= LONG_REST)
        if failure is not None and lasting and now < self.breaker.until + FAULT_MEMORY:
            return False, failure.fault, f"{failure}; tried again at least once a minute"
        if unknown := self.unknown_models(now):
            message = f"it does not have {' and '.join(unknown)} (status 404); " + UNKNOWN_REMEDY
            some = len(unknown) < len(self.rates)
            return some, self.reason if some else Fault.MODEL_UNKNOWN, message
        return True, self.reason, self.message

    def _rests(self, pause: float, now: float) -> str:
        if now >= self.breaker.until:
            return f"another request tries whether it answers again, after: {self.breaker.failure}"
        return f"it rests for {pause:.0f} s, after: {self.breaker.failure}"


def _short(shortage: Shortage, tokens: int) -> str:
    limit = f"its limit of {shortage.limit} {shortage.what} per minute"
    if math.isinf(shortage.seconds):
        return f"the request counts as {tokens} tokens, more than {limit}"
    return f"{limit} is reached; there is room for this request in {shortage.seconds:.1f} s"


def told(hindered: tuple[Hindrance, ...]) -> str:
    """Return who cannot be used, and why; "" when that is nobody."""
    return "; ".join(f"{h.provider}: {h.why}" for h in hindered)
