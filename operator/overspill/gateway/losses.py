"""Requests that may have killed replicas, so that none of them gets a third.

One request reads two replicas at most, but its client sends it again: vLLM has ended for a single
body more than once (https://github.com/advisories/GHSA-vrq3-r879-7m65). So it is remembered by a
fingerprint which requests lost a replica while it worked on them. A whole answer to the same
request acquits it. What was innocent and under way at both replicas is barred with the culprit, for
these minutes: to tell them apart would cost a third replica. Each gateway knows its own losses.
"""

from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from overspill.gateway.balance import Address
from overspill.gateway.call import Call, prompt_start

REMEMBERED_SECONDS = 600.0
KEPT = 10_000  # fingerprints, the newest; less than 1 KB each

Fingerprint = bytes


@dataclass(slots=True)
class _Suspect:
    """What was lost while a request was worked on: how often, where last, and when last."""

    count: int = 0
    at: float = 0.0
    places: dict[Address, float] = field(default_factory=dict)


class Losses:
    """The suspects of one gateway. Pure; time is monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._suspects: dict[Fingerprint, _Suspect] = {}  # the newest loss is last

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def of(self, fingerprint: Fingerprint, now: float) -> int:
        """Return how many replicas were lost to that request lately."""
        suspect = self._suspects.get(fingerprint)
        if suspect is None or now - suspect.at > REMEMBERED_SECONDS:
            return 0
        return suspect.count

    def note(self, fingerprint: Fingerprint, place: Address, sent: float, now: float) -> int:
        """Remember a loss; return how many there are now.

        Equal requests that were at one replica together have lost it once.

        :param sent: when this one was sent there.
        """
        suspect = self._suspects.pop(fingerprint, None)
        if suspect is None or now - suspect.at > REMEMBERED_SECONDS:
            suspect = _Suspect()
        if sent > suspect.places.get(place, float("-inf")):
            suspect.count += 1
        suspect.at = suspect.places[place] = now
        self._suspects[fingerprint] = suspect
        if len(self._suspects) > KEPT:
            del self._suspects[next(iter(self._suspects))]
        return suspect.count

    def acquit(self, fingerprint: Fingerprint) -> None:
        """Forget a request that was answered."""
        self._suspects.pop(fingerprint, None)


def fingerprint_of(call: Call, tenant: str, service: str) -> Fingerprint:
    """Return the same for what an engine reads as the same, whatever the model was called.

    XXH3 is no cryptographic hash: who makes two requests collide bars requests of their own.

    :param service: its key.
    """
    about = f"{tenant} {service} {call.engine_path.decode()}"
    seed = xxh3_64_intdigest(about.encode())
    return xxh3_128_digest(memoryview(call.body)[prompt_start(call) :], seed)
