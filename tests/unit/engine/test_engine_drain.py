"""When a draining engine may stop, told as looks over time."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.engine.drain import IDLE_LOOKS, INTERVAL, Drain
from overspill.engine.load import Gauges
from overspill.engine.main import ENGINES

LLAMA = """# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {running}
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred {waiting}
"""
VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="a}}"}} {running}
vllm:num_requests_running{{engine="1",model_name="a}}"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="a"}} {waiting}
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 9
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
        (LLAMA.format(running=0, waiting=0), 0),
        (LLAMA.format(running=2, waiting=3), 5),
        (LLAMA.format(running="1e0", waiting="0.0"), 1),
        (LLAMA.format(running=1, waiting="NaN"), None),
        (LLAMA.format(running=1, waiting="x"), None),
        (LLAMA.format(running=1, waiting="").replace("llamacpp:requests_deferred \n", ""), None),
        ("", None),
    ],
)
def test_running_and_waiting_requests_count(page: str, expected: int | None) -> None:
    gauges = Gauges("", "llamacpp:requests_processing", "llamacpp:requests_deferred")
    assert gauges.read(page) == expected


def test_the_series_of_a_gauge_are_summed_and_its_namesakes_are_not() -> None:
    gauges = Gauges("", "vllm:num_requests_running", "vllm:num_requests_waiting")
    assert gauges.read(VLLM.format(running="2.0", waiting="1.0")) == 5


def test_an_engine_may_say_only_what_runs() -> None:
    assert (
        Gauges("", "llamacpp:requests_processing", None).read(LLAMA.format(running=3, waiting=1))
        == 3
    )


class Unavailable(BaseHTTPRequestHandler):
    """Answers 503 to everything, as llama.cpp does while it loads its model."""

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def unavailable() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Unavailable) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


@pytest.mark.parametrize(
    ("loading", "active"),
    [(ENGINES["llamacpp"].loading, 0), (ENGINES["vllm"].loading, None), (500, None)],
)
def test_only_an_engine_that_says_so_is_idle_when_unavailable(
    unavailable: str, loading: int | None, active: int | None
) -> None:
    assert Gauges(unavailable, "running", None, loading).active() == active


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
