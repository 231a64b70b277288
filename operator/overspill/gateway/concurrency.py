"""How many requests an engine really computes at a time, learned from what it reports.

``maxSequences`` is what an engine may batch. Long prompts fill its KV cache before that, and then
the rest waits in the engine, where it can neither be spilled nor refused; an engine of the user's
own may batch more than anybody has said. The engine's own queue tells which it is, so the limit is
moved as TCP Vegas moves its window (Brakmo, O'Malley and Peterson 1994,
https://doi.org/10.1145/190314.190317), but the queue is read instead of estimated from round trips:

* a queue that stands (CoDel's word, RFC 8289 §3) for a while although no more requests are computed
  than before: the limit is halved, but never below what is computed. So one look at two requests,
  of which one waits for the other's long prompt, does not make an engine one of a single request;
  a queue that stays takes the limit down to what is computed, in seconds;
* while such a queue stands and the limit has not come down to what is computed, the slots that seem
  free are none: nothing more is sent (``stands``);
* no queue while all of the limit is in use: more fits, and the limit grows, by 1, 2, 4, …

Why so, and what was tried: docs/adr/0023. Pure; time is an argument.
"""

from dataclasses import dataclass, replace

# A queue is none where one request waits for so many that are computed: the new ones of a step
# always wait for its end. With less than that, more fits; with more than that, less does.
FITS, TOLERATED = 16, 8
STANDING_SECONDS = 2.0  # that a queue has to last
REST_SECONDS = 10.0  # after a queue, before more is tried again


@dataclass(frozen=True, slots=True)
class Report:
    """What an engine says of all its requests, whoever sent them."""

    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests that an engine may have at a time. Times in monotonic seconds.

    :param value: the limit, of all gateways together.
    :param step: by which it grows next.
    :param queued_since: since when there is a queue and no more is computed, None without one.
    :param most: requests that were computed at a time while there was a queue.
    :param rests_until: before that it does not grow.
    """

    value: int
    step: int = 1
    queued_since: float | None = None
    most: int = 0
    rests_until: float = 0.0


def learn(limit: Limit, report: Report, bound: int, now: float) -> Limit:
    """Return the limit after one more report.

    :param bound: that it never exceeds, at least 1.
    :param now: when the report was made.
    """
    limit = replace(limit, value=min(limit.value, bound))
    if _is_queue(report):
        return _queued(limit, report, bound, now)
    limit = replace(limit, queued_since=None)
    in_use = report.running >= limit.value - limit.value // TOLERATED
    fits = report.waiting <= report.running / FITS
    if not (fits and in_use) or now < limit.rests_until:
        return replace(limit, step=1)
    return replace(limit, value=min(bound, limit.value + limit.step), step=2 * limit.step)


def stands(before: Limit, report: Report, leaving: float) -> bool:
    """Whether requests wait in an engine that computes fewer than it is taken to, and will wait on.

    Seen twice in a row, as some always wait for the end of a step. What comes then waits, too,
    whatever its size: engines let requests in in their order. One that computes all of its limit
    does what it should, and a gateway with more than its slots sends nothing by itself.

    :param before: the limit, before it has learned from the report.
    :param leaving: requests that are expected to end until the next report: where no more wait, it
        would have too little to do.
    """
    queued = _is_queue(report) and before.queued_since is not None and report.waiting > leaving
    return queued and report.running <= before.most and report.running < before.value


def _is_queue(report: Report) -> bool:
    return report.running > 0 and report.waiting > report.running / TOLERATED


def _queued(limit: Limit, report: Report, bound: int, now: float) -> Limit:
    """Return the limit after a report of a queue; one that is still being worked in is let be."""
    since = limit.queued_since
    if since is None or report.running > limit.most:
        return replace(limit, step=1, queued_since=now, most=report.running)
    if now - since < STANDING_SECONDS:
        return replace(limit, step=1)
    value = min(bound, max(limit.most, limit.value // 2))
    rests = now + REST_SECONDS
    return Limit(value, queued_since=now, most=report.running, rests_until=rests)
