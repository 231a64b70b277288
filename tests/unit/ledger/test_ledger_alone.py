"""A gateway that runs alone keeps its budgets, and the record of them in a file."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest
import structlog
from gateway_world import MESSAGES, Upstream, World, chat, provider, service, spillover, world
from ledger_world import SERVICE

from overspill.api.budget import Window
from overspill.api.keys import key_secret, new_key
from overspill.gateway import funds, treasurer
from overspill.gateway.standalone import keeping
from overspill.gateway.treasurer import NAME
from overspill.ledger.treasury import Treasury

COST = 64_750  # nano-dollars of an answer: 5 tokens at $1.75 and 4 at $14 per million
SENT = orjson.dumps({"model": "chat", "messages": MESSAGES, "max_tokens": 7, "stream": False})
WORST = (len(SENT) + 64) * 1750 + 7 * 14_000
BUDGET = WORST + 2 * COST  # for three answers, not four
DAY = {"perDay": f"{BUDGET / 1e9:.9f}"}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "GRANT_SECONDS", 30.0)  # the machine may be busy
    monkeypatch.setattr(treasurer, "RETRY_SECONDS", 0.0)


@pytest.fixture
async def cloud() -> AsyncIterator[Upstream]:
    async with Upstream().serving() as upstream:
        yield upstream


@asynccontextmanager
async def alone(folder: Path, cloud: Upstream) -> AsyncIterator[World]:
    """A gateway without an operator, whose only service has no replica and spills at once."""
    async with world(hold=0.2) as w:
        w.state.put_service(service(spillover=spillover(budget=DAY)))
        w.provider(cloud)
        async with keeping(folder, w.plane, w.stop):
            yield w


async def asked(w: World, times: int) -> list[int]:
    """Ask one after the other; return the status of each answer."""
    return [(await chat(w))[0] for _ in range(times)]


def charged(folder: Path) -> int:
    record = Treasury.read((folder / NAME).read_text())
    return record.pot(SERVICE, Window.DAY, time.time()).charged


async def test_a_budget_holds_and_outlives_the_gateway(tmp_path: Path, cloud: Upstream) -> None:
    async with alone(tmp_path, cloud) as w:
        assert await asked(w, 5) == [200, 200, 200, 503, 503]
        body = (await chat(w))[2]
        assert "the budget of service/team-a/chat for this day has no room" in body.decode()
        assert 'overspill_budget_charged_dollars{account="service/team-a/chat"' in await w.metrics()
    assert len(cloud.bodies) == 3
    assert charged(tmp_path) == 3 * COST, "what was left was given back at the end"
    async with alone(tmp_path, cloud) as w:
        assert await asked(w, 1) == [503]
        w.state.put_service(service(spillover=spillover(budget={"perDay": "1"})))
        async with asyncio.timeout(60):  # what was refused a second ago is not asked for again
            while await asked(w, 1) != [200]:
                pass


async def test_where_nothing_has_a_budget_nothing_is_written(
    tmp_path: Path, cloud: Upstream
) -> None:
    async with alone(tmp_path, cloud) as w:
        w.state.put_service(service(spillover=spillover()))
        assert await asked(w, 1) == [200]
    assert not (tmp_path / NAME).exists()


async def test_of_two_gateways_with_one_folder_the_second_gets_money_when_the_first_ends(
    tmp_path: Path, cloud: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone(tmp_path, cloud) as second:
        async with alone(tmp_path, cloud) as first:
            assert await asked(first, 1) == [200]
            with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
                patch.setattr(funds, "GRANT_SECONDS", 0.3)
                assert await asked(second, 1) == [503]
            assert "give each a folder of its own" in logs[0]["problem"]
        assert await asked(second, 3) == [200, 200, 503]


@pytest.mark.parametrize("fault", ["no record", "not writable"])
async def test_without_its_record_nothing_is_sent_until_it_can_be_used(
    tmp_path: Path, cloud: Upstream, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    wrong = tmp_path / ("overspill.new" if fault == "not writable" else NAME)
    wrong.mkdir() if fault == "not writable" else wrong.write_text("{")
    async with alone(tmp_path, cloud) as w:
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(funds, "GRANT_SECONDS", 0.3)
            assert await asked(w, 1) == [503]
        assert wrong.name in logs[0]["problem"]
        assert "overspill_ledger_writable 0.0" in await w.metrics()
        wrong.rmdir() if fault == "not writable" else wrong.unlink()
        assert await asked(w, 1) == [200]
        assert "overspill_ledger_writable 1.0" in await w.metrics()


def objects(cloud: Upstream, key_digest: str) -> list[dict[str, object]]:
    """What the folder of a real process says."""
    key = key_secret("team-a", "ci", key_digest, "team-a")
    host = f"{cloud.address[0]}:{cloud.address[1]}"
    account = {
        "kind": "Secret",
        "metadata": {
            "name": "cloud-key",
            "namespace": "team-a",
            "annotations": {"overspill.dev/provider-hosts": host},
        },
        "stringData": {"api-key": "sk-1"},
    }
    chat_service = service(spillover=spillover(budget=DAY))
    chat_service.pop("status")
    kinds = ("InferenceService", "InferenceProvider")
    ours = zip(kinds, (chat_service, provider(cloud)), strict=True)
    return [key, account, *({"kind": kind, **raw} for kind, raw in ours)]


@contextmanager
def process(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real `overspill gateway`."""
    program = "from overspill.cli.main import run; run()"
    options = ["--objects", str(folder), "--port", str(port), "--internal-port", "0"]
    started = subprocess.Popen(
        [sys.executable, "-c", program, "gateway", *options],
        env={**os.environ, "OVERSPILL_GATEWAY_HOLD": "1s"},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


async def test_a_process_that_is_killed_has_spent_what_it_held(
    tmp_path: Path, cloud: Upstream
) -> None:
    key, key_digest = new_key()
    for number, raw in enumerate(objects(cloud, key_digest)):
        (tmp_path / f"{number}.json").write_text(json.dumps(raw))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"x-api-key": key}

    async def ask(session: aiohttp.ClientSession) -> int:
        for _ in range(600):  # a minute, for the process to come up
            try:
                async with session.post(url, data=SENT, headers=headers) as answer:
                    return answer.status
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
        raise AssertionError("the gateway did not come up")

    async with aiohttp.ClientSession() as session:
        with process(tmp_path, port) as first:
            assert await ask(session) == 200
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert charged(tmp_path) >= WORST
        with process(tmp_path, port) as second:
            assert await ask(session) == 503, "the first may have spent all that it was granted"
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 60) == 0
    assert len(cloud.bodies) == 1
    assert charged(tmp_path) <= BUDGET
