"""How long it takes to refuse a key says nothing of the keys that there are (S5).

Two kinds of wrong keys are told apart by their times, or not, as dudect does: https://eprint.iacr.org/2016/1123
"""

import math
import random
import statistics
import time
from collections.abc import Callable

from lab.lengths import length
from overspill.api.keys import key_secret, new_key
from overspill.gateway.keys import KeyIndex

KEY, DIGEST = new_key()
LEAKS = 10.0  # dudect's: beyond this t, two distributions are certainly not one


def near(dice: random.Random) -> bytes:
    """A wrong key that begins as the right one does."""
    return f"{KEY[:-4]}{dice.randrange(10_000):04}".encode()


def far(dice: random.Random) -> bytes:
    """A wrong key of the same length that shares nothing with it but its first letters."""
    return f"osk-{dice.randrange(10**42):043}"[: len(KEY)].encode()


def told_apart(check: Callable[[bytes], object], number: int) -> float:
    """Return Welch's t of the times that both kinds take, without the slowest tenth of each."""
    dice = random.Random(5)
    times: dict[Callable[[random.Random], bytes], list[int]] = {near: [], far: []}
    kinds = dice.choices([near, far], k=number)
    keys = [kind(dice) for kind in kinds]  # before: making them leaves traces in the CPU's caches
    for kind, key in zip(kinds, keys, strict=True):
        began = time.thread_time_ns()  # what else runs on the machine does not count
        check(key)
        times[kind].append(time.thread_time_ns() - began)
    one, other = (sorted(taken)[: len(taken) * 9 // 10] for taken in times.values())
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return abs(statistics.mean(one) - statistics.mean(other)) / math.sqrt(max(spread, 1e-9))


def leaky(key: bytes) -> bool:
    """Compare as nobody should."""
    return len(key) == len(KEY) and all(a == b for a, b in zip(key, KEY.encode(), strict=True))


def test_near_and_far_keys_take_the_same_time_and_a_leaky_comparison_is_found() -> None:
    keys = KeyIndex()
    keys.replace([key_secret("overspill-system", "ci", DIGEST, "team-a")])
    number = length(4_000, 400_000)
    assert told_apart(leaky, 4_000) > LEAKS
    assert told_apart(keys.find, number) < LEAKS
