"""Calendar windows: every moment is in exactly one, whatever the local time does."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.budget import Window
from overspill.ledger.windows import bounds


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("window", "now", "begin", "end"),
    [
        (Window.HOUR, "2026-11-30T23:59:59", "2026-11-30T23:00:00", "2026-12-01T00:00:00"),
        (Window.DAY, "2026-11-30T23:59:59", "2026-11-30T00:00:00", "2026-12-01T00:00:00"),
        (Window.MONTH, "2026-12-31T12:00:00", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        (Window.MONTH, "2028-02-29T00:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        # Central Europe's clocks go back an hour: a day has 24 hours all the same
        (Window.DAY, "2026-10-25T01:30:00", "2026-10-25T00:00:00", "2026-10-26T00:00:00"),
    ],
)
def test_windows(window: Window, now: str, begin: str, end: str) -> None:
    assert bounds(window, seconds(now)) == (seconds(begin), seconds(end))


@given(st.sampled_from(Window), st.floats(0, 4e9))
def test_windows_follow_each_other_without_a_gap(window: Window, now: float) -> None:
    begin, end = bounds(window, now)
    assert begin <= now < end
    assert bounds(window, begin) == bounds(window, end - 1) == (begin, end)
    assert bounds(window, end)[0] == end
