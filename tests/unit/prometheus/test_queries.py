"""Our queries, asked of a real Prometheus that scrapes small targets on loopback.

Two gateways, one of them scraped by two jobs; an engine; and a target whose samples are old.
"""

import asyncio
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from real_prometheus import needed, started

from overspill.api import metrics
from overspill.prometheus.client import PrometheusClient, PrometheusUnavailable
from overspill.prometheus.queries import (
    MIX,
    RECORDED_SUMS,
    SUMS,
    WINDOW,
    OwnMetrics,
    recording_rules,
    signals,
)
from overspill.prometheus.samples import Missing, Samples

pytestmark = needed
BUSY, QUIET = ("team-a", "chat"), ("team-a", "quiet")
KEY = "team-a/chat"
TARGET_LABELS = {"service_namespace": "team-a", "service_name": "chat"}


# Of the eleven requests that each gateway answers.
TOKENS = {
    ("local", "input"): 600,
    ("local", "cached"): 200,
    ("local", "output"): 400,
    ("cloud/openai", "input"): 300,
    ("cloud/openai", "output"): 150,
}


class FakeGateway:
    """The gateway's series of two services, one of which gets requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        service, to = metrics.SERVICE_LABELS, (*metrics.SERVICE_LABELS, "destination")
        make = {"registry": self.registry}
        self.ready = Gauge(metrics.READY_REPLICAS, "-", service, **make)
        self.queued = Gauge(metrics.QUEUED, "-", service, **make)
        self.in_flight = Gauge(metrics.IN_FLIGHT, "-", to, **make)
        self.arrivals = Counter(metrics.ARRIVALS, "-", service, **make)
        self.requests = Counter(metrics.REQUESTS, "-", (*to, "reason", "code"), **make)
        self.cost = Counter(metrics.COST, "-", to, **make)
        self.tokens = Counter(metrics.TOKENS, "-", (*to, "kind"), **make)
        self.used = Counter(metrics.GPU_SECONDS, "-", service, **make)
        self.own_cost = Counter(metrics.GPU_COST, "-", service, **make)
        self.ttft = Histogram(metrics.TTFT, "-", to, buckets=metrics.TTFT_BUCKETS, **make)
        for name in (BUSY, QUIET):
            self.ready.labels(*name).set(1)
            self.ttft.labels(*name, "local")
            self.ttft.labels(*name, "cloud/openai")
            self.requests.labels(*name, "local", "", "200")
            self.requests.labels(*name, "local", "", "499")
            self.requests.labels(*name, "cloud/openai", "ClusterFull", "200")
            self.requests.labels(*name, "none", "", "429")
            self.in_flight.labels(*name, "local").set(0)
            self.arrivals.labels(*name)
        for destination, kind in TOKENS:
            self.tokens.labels(*BUSY, destination, kind)
        self.used.labels(*BUSY)
        self.own_cost.labels(*BUSY)
        self.cost.labels(*BUSY, "cloud/openai")
        self.queued.labels(*BUSY).set(2)
        self.in_flight.labels(*BUSY, "local").set(3)
        self.in_flight.labels(*BUSY, "cloud/openai").set(1)

    def serve(self) -> str:
        server, _ = start_http_server(0, "127.0.0.1", self.registry)
        self.server = server
        return f"127.0.0.1:{server.server_port}"

    def work(self) -> None:
        """Twelve requests arrive: nine answered locally in 0.3 s, three by a provider."""
        self.arrivals.labels(*BUSY).inc(12)
        self.requests.labels(*BUSY, "local", "", "200").inc(8)
        self.requests.labels(*BUSY, "local", "", "499").inc(1)
        self.requests.labels(*BUSY, "cloud/openai", "ClusterFull", "200").inc(3)
        self.requests.labels(*BUSY, "none", "", "429").inc(50)
        self.cost.labels(*BUSY, "cloud/openai").inc(0.5)
        for (destination, kind), number in TOKENS.items():
            self.tokens.labels(*BUSY, destination, kind).inc(number)
        self.used.labels(*BUSY).inc(3600)
        self.own_cost.labels(*BUSY).inc(1.5)
        for _ in range(9):
            self.ttft.labels(*BUSY, "local").observe(0.3)
            self.ttft.labels(*BUSY, "cloud/openai").observe(9.0)


ENGINES = {
    "/llamacpp": "llamacpp:requests_processing 4\nllamacpp:requests_deferred 1\n",
    # Two data-parallel ranks in one pod.
    "/vllm": "".join(
        f'vllm:num_requests_running{{engine="{rank}",model_name="m"}} {2 + rank}\n'
        f'vllm:num_requests_waiting{{engine="{rank}",model_name="m"}} {rank}\n'
        f'vllm:kv_cache_usage_perc{{engine="{rank}",model_name="m"}} {0.5 + 0.4 * rank}\n'
        for rank in (0, 1)
    ),
    "/own": "own:running 5\nown:waiting 3\nown_kv_ratio NaN\nllamacpp:requests_processing 0\n",
    "/idle": "own:running 0\nown:waiting 0\nown_kv_ratio 0\n",
}
OWN = frozenset(
    {
        OwnMetrics("team-b", "own:running", "own:waiting", "own_kv_ratio"),
        OwnMetrics("team-c", "own:running", "own:waiting", "own_kv_ratio"),
        OwnMetrics("team-c", waiting="nobody_exports_this"),
    }
)


ASKED = signals(OWN) | SUMS
RECORDED = signals(OWN, recorded=True) | RECORDED_SUMS


class TextTarget(http.server.BaseHTTPRequestHandler):
    """Engines by path, each with a sample that is two windows old."""

    def do_GET(self) -> None:
        old = int((time.time() - 2 * WINDOW) * 1000)
        page = f"{ENGINES[self.path]}{metrics.QUEUED} 99 {old}\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Engines(http.server.ThreadingHTTPServer):
    """Serves them; a scrape that gave up on a busy machine is no news.

    Tracebacks of several threads at once make Python 3.11 fail elsewhere, in ``ast.parse``:
    https://github.com/python/cpython/issues/106905.
    """

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
rule_files: [recording.yaml]
scrape_configs:
- {{job_name: gateways, static_configs: [{{targets: ["{one}", "{two}"]}}]}}
- {{job_name: again, static_configs: [{{targets: ["{one}"]}}]}}
- job_name: engines
  static_configs: [{engines}]
"""
SERVICES = {
    "team-a/chat": "/llamacpp",
    "team-a/vllm": "/vllm",
    "team-b/own": "/own",
    "team-c/idle": "/idle",
    "team-d/undeclared": "/idle",
}


def engine_target(address: str, service: str, path: str) -> str:
    labels = dict(zip(metrics.SERVICE_LABELS, service.split("/"), strict=True))
    return json.dumps({"targets": [address], "labels": {**labels, "__metrics_path__": path}})


RATES = {"arrivals_rate": 24, "local_rate": 18, "spilled_rate": 6}  # requests in the window
DAY = {
    "gpu_hours": 2.0, "gpu_dollars": 3.0, "spilled_dollars": 1.0,
    "own_input": 1200.0, "own_cached": 400.0, "own_output": 800.0, "spilled_tokens": 900.0,
    "gpu_dollars_hour": 3.0, "spilled_dollars_hour": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Samples]]:
    """Run Prometheus over one round of work and ask it everything."""
    gateways = [FakeGateway(), FakeGateway()]
    one, two = (g.serve() for g in gateways)
    engine = Engines(("127.0.0.1", 0), TextTarget)
    threading.Thread(target=engine.serve_forever, args=(0.05,), daemon=True).start()
    folder = tmp_path_factory.mktemp("prometheus")
    address = f"127.0.0.1:{engine.server_port}"
    engines = ", ".join(engine_target(address, *item) for item in SERVICES.items())
    config = CONFIG.format(one=one, two=two, engines=engines)
    rules = recording_rules()
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "recording.yaml").write_text(yaml.safe_dump(rules))
    try:
        with (
            started(folder, config) as found_at,
            closing(PrometheusClient(f"http://{found_at}")) as client,
        ):
            wait_for(client, begun)
            for gateway in gateways:
                gateway.work()
            found = wait_for(client, settled)
            recorded = wait_for(client, settled, RECORDED)
            yield found | {f"recorded {name}": samples for name, samples in recorded.items()}
    finally:
        engine.shutdown()
        for gateway in gateways:
            gateway.server.shutdown()


def wait_for(
    client: PrometheusClient,
    condition: Callable[[dict[str, Samples]], bool],
    queries: dict[str, str] = ASKED,
) -> dict[str, Samples]:
    """Ask until the answers are as expected; after 60 s the tests say what they are instead."""
    answers: dict[str, Samples] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (answers and condition(answers)):
        time.sleep(0.2)
        with suppress(PrometheusUnavailable):
            answers = asyncio.run(ask(client, queries))
    assert answers, "Prometheus did not answer in 60 s"
    return answers


async def ask(client: PrometheusClient, queries: dict[str, str]) -> dict[str, Samples]:
    return {name: await client.query(query) for name, query in queries.items()}


def begun(answers: dict[str, Samples]) -> bool:
    """Every target was scraped, and those whose counters will move, twice: a rate needs two."""
    scraped = answers["gateways"].get(KEY) == 2.0 and len(answers["engine_running"]) == 4
    return scraped and all(answers[name].get(KEY) == 0.0 for name in (*RATES, *DAY))


def settled(answers: dict[str, Samples]) -> bool:
    """All work of both gateways is in all sums, which are extrapolated fairly; no scrape failed."""
    wanted = {"gateways": 2, "in_flight": 6, "spilled_in_flight": 2, "queued": 4} | DAY
    wanted |= {name: requests / WINDOW for name, requests in RATES.items()}
    found = {name: answers[name].get(KEY) for name in wanted}
    engines = [len(answers[n]) for n in ("engine_running", "engine_waiting", "kv_usage")]
    return (
        found == pytest.approx(wanted, rel=0.08)
        and answers["residence"].get(KEY) == pytest.approx(6.0 / found["local_rate"], rel=0.08)
        and engines == [4, 4, 3]
    )


def test_gauges_are_summed_over_gateways_and_not_over_jobs(answers):
    assert answers["gateways"] == {KEY: 2.0, "team-a/quiet": 2.0}
    assert answers["in_flight"] == {KEY: 6.0, "team-a/quiet": 0.0}
    assert answers["spilled_in_flight"][KEY] == 2.0


def test_a_gauge_that_is_old_does_not_count(answers):
    assert answers["queued"] == {KEY: 4.0}, "99 are two windows old"


@pytest.mark.parametrize(("signal", "requests"), RATES.items())
def test_rates_count_each_request_once(answers, signal, requests):
    assert answers[signal][KEY] * WINDOW == pytest.approx(requests, rel=0.1)
    assert answers[signal]["team-a/quiet"] == 0.0


@pytest.mark.parametrize("name", [*signals(), *SUMS])
def test_what_is_recorded_is_what_the_query_says(answers, name):
    """Of engines of a user's own, too, which no rule knows; nothing is added and nothing lost."""
    asked, recorded = answers[name], answers[f"recorded {name}"]
    assert recorded.keys() == asked.keys()
    for key, value in asked.items():
        number = isinstance(value, float)
        assert recorded[key] == (pytest.approx(value, rel=0.1) if number else value)


def test_latency_is_that_of_local_answers(answers):
    assert 0.25 < answers["ttft_p95"][KEY] <= 0.5, "the provider took 9 s"


def test_latency_of_no_requests_is_not_a_number(answers):
    assert answers["ttft_p95"]["team-a/quiet"] is Missing.NOT_A_NUMBER
    assert answers["residence"]["team-a/quiet"] is Missing.NOT_A_NUMBER


def test_what_nobody_exports_is_absent(answers):
    assert answers["itl_p95"] == {}
    assert answers["within_objective_rate"] == {}


def test_residence_is_in_flight_over_rate(answers):
    expected = 6.0 / answers["local_rate"][KEY]
    assert answers["residence"][KEY] == pytest.approx(expected, rel=0.1)


def test_each_engine_is_read_by_its_own_names_in_one_query(answers):
    """By the labels of its target; an undeclared name of a user's own counts for nobody."""
    running, waiting = answers["engine_running"], answers["engine_waiting"]
    assert (running[KEY], waiting[KEY]) == (4.0, 1.0)
    assert (running["team-a/vllm"], waiting["team-a/vllm"]) == (5.0, 1.0)
    assert (running["team-c/idle"], waiting["team-c/idle"]) == (0.0, 0.0)
    assert waiting["team-b/own"] == 3.0
    assert "team-d/undeclared" not in running
    assert running["team-b/own"] == 0.0, "one of our names comes first where an engine has both"


def test_kv_usage_is_the_mean_and_absent_nan_and_zero_are_three_things(answers):
    assert answers["kv_usage"] == {
        "team-a/vllm": pytest.approx(0.7),
        "team-b/own": Missing.NOT_A_NUMBER,
        "team-c/idle": 0.0,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"running": 'up"} or vector(1) or {a="'},
        {"waiting": "a-b"},
        {"kv_usage": "9lives"},
        {"running": "a\nb"},
        {"running": "a\n"},
        {"namespace": '.*"} or up{a=~"'},
        {"namespace": ".*"},
    ],
)
def test_what_is_no_name_never_gets_into_a_query(fields):
    with pytest.raises(ValueError, match="is no"):
        OwnMetrics(**{"namespace": "team-a", **fields})


@given(st.frozensets(st.text(max_size=8), max_size=4))
def test_a_query_holds_only_names(texts):
    accepted = set()
    for text in texts:
        with suppress(ValueError):
            accepted.add(OwnMetrics("team-a", running=text))
    query = signals(frozenset(accepted))["engine_running"]
    words = {word for own in accepted if (word := own.running)}
    assert all(re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", word) for word in words)
    assert query.count(" or ") == 1 + len(words)


@pytest.mark.parametrize(("name", "amount"), DAY.items())
def test_costs_of_a_day(answers, name, amount):
    assert answers[name][KEY] == pytest.approx(amount, rel=0.1)


def test_a_usual_request_counts_what_was_cached_and_what_was_spilled(answers):
    tokens = {name: answers[name][KEY] for name in MIX}
    assert tokens == pytest.approx(
        {"prompt_tokens": 1100 / 11, "completion_tokens": 550 / 11}, rel=0.1
    )
    assert "team-a/quiet" not in answers["prompt_tokens"], "nobody has counted any"
