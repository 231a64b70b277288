"""The page of metrics: whole, in order, and made without holding up the requests."""

import asyncio
import re

import pytest
from gateway_world import service, spillover
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from overspill.gateway.memory import Memory
from overspill.gateway.metrics import Metrics
from overspill.gateway.series import Counters, Histograms
from overspill.gateway.state import State

SERVICES = 50


def many() -> Metrics:
    state = State(asyncio.get_running_loop().time, 10)
    for number in range(SERVICES):
        state.put_service(service(f"chat-{number}", spillover=spillover()))
    return Metrics(state, Memory(0))


async def test_others_have_their_turn_while_the_page_of_many_services_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("overspill.gateway.metrics.SLICE_SECONDS", 0.0)
    metrics, turns = many(), 0
    page = asyncio.create_task(metrics.render())
    while not page.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= SERVICES


async def test_all_lines_of_a_metric_are_one_group() -> None:
    """Each service is rendered by itself; the format wants them together."""
    page = (await many().render()).decode()
    families = list(text_string_to_metric_families(page))
    assert len({family.name for family in families}) == len(families)
    arrivals = next(family for family in families if family.name == "overspill_arrivals")
    assert len([s for s in arrivals.samples if s.name == "overspill_arrivals_total"]) == SERVICES
    assert page.count("# TYPE overspill_failed_attempts_total") == 1, "told without any series, too"


async def test_a_service_that_goes_and_comes_again_begins_at_zero() -> None:
    metrics = many()
    chat = metrics.state.services["team-a/chat-0"]
    metrics.of(chat).arrivals.inc()
    line = 'overspill_arrivals_total{service_name="chat-0",service_namespace="team-a"}'
    assert f"{line} 1.0" in (await metrics.render()).decode()
    metrics.state.remove_service("team-a/chat-0")
    assert line not in (await metrics.render()).decode()
    metrics.state.put_service(service("chat-0"))
    assert f"{line} 0.0" in (await metrics.render()).decode()


@given(st.lists(st.floats(0, 10) | st.sampled_from([0.1, 1.0]), max_size=20), st.text(max_size=5))
def test_series_are_told_as_the_librarys_own_are(values: list[float], label: str) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    shape, bounds = ("a_seconds", "Text.", ("of",)), (0.1, 1.0)
    counter = Counter("b_total", "Text.", ("of",), registry=theirs)
    histogram = Histogram(*shape, buckets=bounds, registry=theirs)
    counters, histograms = Counters("b_total", "Text.", ("of",)), Histograms(*shape, bounds)
    ours.register(counters)
    ours.register(histograms)
    for value in values:
        counter.labels(label).inc(value)
        counters.labels(label).inc(value)
        histogram.labels(label).observe(value)
        histograms.labels(label).observe(value)
    created = re.compile(rb"^.*_created.*\n", re.MULTILINE)  # a gateway's page has none
    assert generate_latest(ours) == created.sub(b"", generate_latest(theirs))
