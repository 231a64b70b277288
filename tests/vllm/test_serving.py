"""A real vLLM: its metrics, one scale decision from them through Prometheus, and its drain."""

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import Served
from overspill.api import metrics
from overspill.autoscaler.policy import PolicyState, decide
from overspill.autoscaler.signals import Replicas, Rules, Signals
from overspill.engine.load import gauge
from overspill.engine.vllm import VLLM
from overspill.prometheus.client import PrometheusClient
from overspill.prometheus.queries import SIGNALS

KEY = "team-a/chat"
LONG = 150  # tokens: some seconds here
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: engines
    static_configs:
      - targets: ["127.0.0.1:{port}"]
        labels: {{service_namespace: team-a, service_name: chat}}
"""


def test_it_answers_under_the_served_name(vllm: Served) -> None:
    answer = vllm.complete("Once upon a time", 8)
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("chat", 8)


def test_its_metrics_have_the_names_that_are_read(vllm: Served) -> None:
    page = vllm.page()
    for name in (metrics.VLLM_RUNNING, metrics.VLLM_WAITING, metrics.VLLM_KV_USAGE):
        assert gauge(page, name) == 0
    assert (VLLM().running, VLLM().waiting) == (metrics.VLLM_RUNNING, metrics.VLLM_WAITING)


@pytest.fixture
def prometheus(vllm: Served, tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that scrapes the engine as the operator's target list has it."""
    program = shutil.which("prometheus")
    assert program, "no prometheus on the PATH: run `make prometheus`"
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=vllm.port))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=30)


async def ask(client: PrometheusClient) -> Signals:
    """All signals of the service now."""
    answers = await asyncio.gather(*(client.query(query) for query in SIGNALS.values()))
    return Signals.of(KEY, dict(zip(SIGNALS, answers, strict=True)))


async def test_its_load_scales_the_service_out(vllm: Served, prometheus: str) -> None:
    rules = Rules(1, 10, slots=2, ttft=2, itl=0.1, queue_wait=1, idle_after=600)
    client = PrometheusClient(prometheus)
    now = time.time()
    state = PolicyState.start(now, 1, 1)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(vllm.complete, f"Story {n}:", LONG) for n in range(6)]
        while not all(answer.done() for answer in answers):
            await asyncio.sleep(0.5)
            signals = await ask(client)
            now += 5
            decision, state = decide(now, state, rules, Replicas(1, 1, 1, 0), signals, None)
            print(
                decision.replicas_to,
                decision.reason,
                signals.engine_running,
                signals.engine_waiting,
            )
            if decision.replicas_to > 1:
                break
    client.close()
    assert (signals.engine_running, signals.engine_waiting) == (2, 4)
    assert decision.replicas_to == 4  # six requests, two at a time, used to 80 %
    assert decision.reason == "LoadAboveCapacity"


def test_a_drain_lets_the_last_answer_end(vllm: Served) -> None:  # the last test: it ends it
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(vllm.complete, "Once upon a time", LONG)
        while gauge(vllm.page(), metrics.VLLM_RUNNING) != 1:
            assert not answer.done()
            time.sleep(0.1)
        vllm.process.send_signal(signal.SIGTERM)
        assert answer.result()["usage"]["completion_tokens"] == LONG
    status, _ = vllm.end()
    assert status == 0
    drained = [line for line in vllm.log.read_text().splitlines() if '"event": "drained"' in line]
    assert len(drained) == 1
    assert '"left": 0' in drained[0]
