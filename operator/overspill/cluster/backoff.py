"""How long to wait before the next try."""

import random


def backoff(failures: int, *, first: float = 1.0, longest: float = 60.0) -> float:
    """Return seconds to wait: exponential, with full jitter over the upper half.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    :param failures: failed tries in a row, at least 1.
    :param first: seconds after the first failure at most.
    :param longest: seconds at most, however many tries failed.
    """
    ceiling = min(longest, first * 2.0 ** min(failures - 1, 30))
    return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - no secret depends on it
