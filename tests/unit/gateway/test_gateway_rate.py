"""Limits per minute: never passed, never a wait without an end, divided among gateways."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.gateway.rate import Limits, Throttle
from overspill.gateway.share import Share

ARRIVALS = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 300)), max_size=15)


def throttle(
    limits: Limits, burst: float, share: Share | None = None, *, borrows: bool = False
) -> Throttle:
    made = Throttle(burst, borrows)
    made.configure(limits, share or Share(), 0.0)
    return made


@settings(max_examples=50)
@given(
    arrivals=ARRIVALS,
    requests=st.integers(1, 100),
    tokens=st.integers(1, 1000),
    burst=st.sampled_from([5.0, 60.0]),
    gateways=st.integers(1, 3),
    borrows=st.booleans(),
)
def test_no_minute_holds_more_than_the_limit_and_the_burst(
    arrivals: list[tuple[float, int]],
    requests: int,
    tokens: int,
    burst: float,
    gateways: int,
    borrows: bool,
) -> None:
    limits = Limits(requests, tokens)
    made = [
        throttle(limits, burst, Share(rank, gateways), borrows=borrows) for rank in range(gateways)
    ]
    now, sent = 0.0, []
    for number, (gap, amount) in enumerate(arrivals):
        now += gap
        mine = made[number % gateways]
        if mine.shortage(amount, now) is None:
            mine.take(amount, now)
            sent.append((now, amount))
    held = [max(1.0, limit / gateways * burst / 60) * gateways for limit in limits if limit]
    for start, _ in sent:
        minute = [amount for at, amount in sent if start <= at <= start + 60]
        assert len(minute) <= requests + held[0] + 1e-4
        free = 0.0 if borrows else held[1] / gateways
        above = gateways * max(0.0, max(minute) - free)
        assert sum(minute) <= tokens + held[1] + above + 1e-4


@settings(max_examples=50)
@given(ARRIVALS, st.integers(1, 100), st.integers(300, 1000))
def test_who_waits_as_long_as_told_may_go(
    arrivals: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    made, now = throttle(Limits(requests, tokens), 5.0), 0.0
    for gap, amount in arrivals:
        now += gap
        shortage = made.shortage(amount, now)
        if shortage is not None:
            assert 0 < shortage.seconds <= 60 * (1 + amount / tokens + 1 / requests)
            now += shortage.seconds + 1e-6
        assert made.shortage(amount, now) is None
        made.take(amount, now)


@settings(max_examples=50)
@given(ARRIVALS, st.integers(1, 3))
def test_what_was_used_stays_used_when_gateways_come_and_go(
    arrivals: list[tuple[float, int]], gateways: int
) -> None:
    limits = Limits(60, 600)
    made = throttle(limits, 5.0)
    for gap, amount in arrivals[:5]:
        made.take(amount, gap)
    before = [bucket.now(20.0) for bucket in (made.requests, made.tokens) if bucket]
    made.configure(limits, Share(0, gateways), 20.0)
    after = [bucket.now(20.0) for bucket in (made.requests, made.tokens) if bucket]
    assert all(late <= early for early, late in zip(before, after, strict=True))


@given(ARRIVALS)
@settings(max_examples=20)
def test_small_requests_do_not_keep_a_large_one_out_where_all_borrow(
    arrivals: list[tuple[float, int]],
) -> None:
    made, now = throttle(Limits(tokens=300), 5.0, borrows=True), 0.0
    for gap, amount in arrivals:
        now += gap
        assert made.shortage(300, now) == made.shortage(1, now)
        if made.shortage(amount, now) is None:
            made.take(amount, now)


def test_the_shortage_says_which_limit_lasts_and_none_is_no_limit() -> None:
    made = throttle(Limits(60, 600), 5.0)
    assert made.shortage(601, 0.0) == ("tokens", 600, math.inf)
    made.take(550, 0.0)
    assert made.shortage(100, 0.0) == ("tokens", 600, 55.0), "full again: 50 of 50"
    made.take(-550, 0.0)
    made.take(0, 0.0, requests=6)
    assert made.shortage(10, 0.0) == ("requests", 60, 4.0)
    assert throttle(Limits(), 5.0).shortage(10**12, 0.0) is None
    made.configure(Limits(None, None), Share(), 0.0)
    assert made.shortage(10**12, 0.0) is None
