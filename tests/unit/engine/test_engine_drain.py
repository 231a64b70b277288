"""When a draining engine may stop, told as looks over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.engine.drain import IDLE_LOOKS, INTERVAL, Drain, active_requests

PAGE = """# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {running}
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred {waiting}
"""


def stops_at(looks: list[int | None], limit: float) -> float:
    """Seconds after which a drain ends that sees `looks`, and then idleness for ever."""
    state, now = Drain(deadline=limit), 0.0
    for active in looks + [0] * 10_000:
        if state.finished(now):
            break
        state, now = state.look(active), now + INTERVAL
    return now


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE.format(running=0, waiting=0), 0),
        (PAGE.format(running=2, waiting=3), 5),
        (PAGE.format(running="1e0", waiting="0.0"), 1),
        (PAGE.format(running=1, waiting="").replace("llamacpp:requests_deferred \n", ""), None),
        ("", None),
    ],
)
def test_running_and_waiting_requests_count(page: str, expected: int | None) -> None:
    assert active_requests(page) == expected


@pytest.mark.parametrize(
    ("looks", "limit", "seconds"),
    [
        ([], 100, IDLE_LOOKS * INTERVAL),  # idle from the start
        ([1, 1, 1, 1], 100, (4 + IDLE_LOOKS) * INTERVAL),  # ends after the last request
        ([0, 0, 1], 100, (3 + IDLE_LOOKS) * INTERVAL),  # a gap between two requests is no end
        ([None] * 8, 100, (8 + IDLE_LOOKS) * INTERVAL),  # too busy to answer is not idle
        ([1] * 1000, 2, 2),  # out of time
        ([], 0, 0),
    ],
)
def test_stories(looks: list[int | None], limit: float, seconds: float) -> None:
    assert stops_at(looks, limit) == pytest.approx(seconds)


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=60), st.floats(0, 20))
def test_never_longer_than_the_limit_and_never_while_busy(
    looks: list[int | None], limit: float
) -> None:
    end = stops_at(looks, limit)
    assert end <= limit + INTERVAL
    if end < limit:
        seen = (looks + [0] * IDLE_LOOKS)[: round(end / INTERVAL)]
        assert seen[-IDLE_LOOKS:] == [0] * IDLE_LOOKS
