"""Calendar windows in UTC: hours, days and months. No daylight saving, no clock of its own."""

from datetime import UTC, datetime, timedelta

from overspill.api.budget import Window


def bounds(window: Window, now: float) -> tuple[int, int]:
    """Return the begin and the end of the window that a moment is in.

    :param now: seconds since the epoch; so are the results.
    """
    moment = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    if window is Window.HOUR:
        begin, end = moment, moment + timedelta(hours=1)
    elif window is Window.DAY:
        begin = moment.replace(hour=0)
        end = begin + timedelta(days=1)
    else:
        begin = moment.replace(day=1, hour=0)
        end = (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp())
