"""What a client's key may ask for in a minute, and what the client is told of it.

A key's bucket holds a minute's worth, as OpenAI's and Anthropic's do; each gateway has an even part
of it. A request counts in tokens as at a provider (``gateway/size.py``), and is corrected when it
has ended. One beyond the limit is refused before anything else is done for it, and does not count.
Pure; time is an argument, in monotonic seconds.

https://platform.openai.com/docs/guides/rate-limits
"""

import math
from collections.abc import Container

from overspill.api.keys import ClientKey
from overspill.gateway.errors import ApiError, Headers
from overspill.gateway.rate import MINUTE, Bucket, Limits, Shortage, Throttle
from overspill.gateway.share import Share

CODE = "rate_limit_exceeded"
_SHORT = {"requests": "RPM", "tokens": "TPM"}


class Quotas:
    """Those of all keys.

    :param known: the ids of all keys that there are.
    """

    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._throttles: dict[str, Throttle] = {}

    def admit(self, key: ClientKey, tokens: int, share: Share, now: float) -> Throttle:
        """Count a request; return the limits it counts in.

        :param tokens: that it is expected to take.
        :raises ApiError: 429 when the key has no room for it now, 413 when it never will.
        """
        limits = Limits(key.requests_per_minute, key.tokens_per_minute)
        throttle = self._throttles.get(key.id) or self._new(key.id)
        throttle.configure(limits, share, now)
        shortage = throttle.shortage(tokens, now)
        if shortage is not None:
            raise _refusal(key, shortage, tokens, told(throttle, now))
        throttle.take(tokens, now)
        return throttle

    def _new(self, key: str) -> Throttle:
        """Begin with full buckets; those of keys that are gone are forgotten."""
        self._throttles = {k: t for k, t in self._throttles.items() if k in self._known}
        return self._throttles.setdefault(key, Throttle(burst=MINUTE))


def told(throttle: Throttle, now: float) -> Headers:
    """Return what a client hears of its limits, in OpenAI's headers.

    The limit is the key's; what remains, and when all is there again, is this gateway's part.
    """
    headers: Headers = []
    for name, limit, bucket in (
        ("requests", throttle.limits.requests, throttle.requests),
        ("tokens", throttle.limits.tokens, throttle.tokens),
    ):
        if bucket is not None:
            left = max(0, math.floor(bucket.now(now)))
            full = _spelled(_seconds_until_full(bucket, now))
            for what, value in (("limit", limit), ("remaining", left), ("reset", full)):
                headers.append((f"x-ratelimit-{what}-{name}".encode(), str(value).encode()))
    return headers


def _seconds_until_full(bucket: Bucket, now: float) -> float:
    return bucket.until(bucket.capacity, now)


def _refusal(key: ClientKey, shortage: Shortage, tokens: int, headers: Headers) -> ApiError:
    what, limit = shortage.what, shortage.limit
    asked = tokens if what == "tokens" else 1
    where = f"key {key.id} on {what} per min ({_SHORT[what]}): Limit {limit}, Requested {asked}."
    if math.isinf(shortage.seconds):
        text = f"Request too large for {where} Send less, or a smaller max_tokens."
        return ApiError(413, "request_too_large", text, headers=tuple(headers))
    seconds = math.ceil(shortage.seconds)  # longer than others are told, where that is true
    text = f"Rate limit reached for {where} Please try again in {_spelled(shortage.seconds)}."
    return ApiError(
        429, CODE, text, headers=(*headers, (b"retry-after", b"%d" % max(1, seconds)))
    )  # fmt: skip


def _spelled(seconds: float) -> str:
    """Return a time as OpenAI's headers spell it, rounded up: ``12ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds else "0s"
    tenths = math.ceil(seconds * 10)
    minutes, left = divmod(tenths, 600)
    rest = f"{left // 10}s" if left % 10 == 0 else f"{left / 10:.1f}s"
    return f"{minutes}m{rest}" if minutes else rest
