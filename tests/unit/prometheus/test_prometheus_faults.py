"""What a real Prometheus can have seen wrongly, and how it can keep us out."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme
import yaml
from real_prometheus import backfill, needed, started

from overspill.api import metrics
from overspill.autoscaler.signals import NO_DATA, Signals, number
from overspill.prometheus.client import Credentials, PrometheusClient, PrometheusUnavailable
from overspill.prometheus.queries import SIGNALS

pytestmark = needed
STEP, RATE = 5, 2.0  # seconds between two scrapes; arrivals per second
BEFORE, AFTER = 300, 900  # seconds of samples about the begin of the test
PASSWORD = "open sesame"
HASH = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"  # bcrypt, at its cheapest

Sample = tuple[str, float, float]


def series(metric: str, service: str, **labels: str) -> str:
    named = {"service_namespace": "team-a", "service_name": service, "instance": "gw"} | labels
    text = ",".join(f'{name}="{value}"' for name, value in named.items())
    return f"{metric}{{{text}}}"


def gateway(service: str, at: float, arrived: float, **labels: str) -> Iterator[Sample]:
    yield series(metrics.ARRIVALS, service, **labels), arrived, at
    yield series(metrics.READY_REPLICAS, service, **labels), 1, at
    yield series(metrics.QUEUED, service, **labels), 3, at


def past(now: int) -> Iterator[Sample]:
    """One gateway each, with the same arrivals, but for what went wrong."""
    begin = (now - BEFORE) // STEP * STEP
    for at in range(begin, begin + BEFORE + AFTER, STEP):
        yield from gateway("steady", at, RATE * at)
        yield series(metrics.VLLM_KV_USAGE, "steady"), 0.5, at
        yield series(metrics.VLLM_KV_USAGE_OLD, "twice"), 0.25, at  # an engine of an older version
        yield from gateway("resets", at, RATE * (at % 20 + STEP))  # it restarts every 20 s
        if at % 60 <= 30:
            yield from gateway("gaps", at, RATE * at)  # 30 s without a scrape, again and again
        for replica in "ab":
            yield from gateway("twice", at, RATE * at, prometheus_replica=replica)
        if at < now - 90:  # less than the five minutes that Prometheus itself looks back
            yield from gateway("deleted", at, RATE * at)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that asks for a password, by a certificate of a private authority."""
    folder = tmp_path_factory.mktemp("prometheus")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(folder / "key")
    own.cert_chain_pems[0].write_to_path(folder / "cert")
    tls = {"cert_file": "cert", "key_file": "key"}
    web = {"tls_server_config": tls, "basic_auth_users": {"overspill": HASH}}
    (folder / "web.yml").write_text(yaml.safe_dump(web))
    backfill(folder, past(int(time.time())))
    patch = pytest.MonkeyPatch()
    patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.crt"))
    with started(folder, "", f"--web.config.file={folder}/web.yml") as found:
        yield f"https://{found}"
    patch.undo()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Secret as it is mounted."""
    (tmp_path / "username").write_text("overspill\n")
    (tmp_path / "password").write_text(PASSWORD)
    return tmp_path


def read(address: str, folder: Path) -> dict[str, Signals]:
    """What we make of each service."""
    with closing(PrometheusClient(address, 30.0, Credentials(folder))) as client:
        answers = {name: asyncio.run(client.query(query)) for name, query in SIGNALS.items()}
    names = ("steady", "resets", "gaps", "twice", "deleted")
    return {name: Signals.of(f"team-a/{name}", answers) for name in names}


def test_resets_gaps_copies_and_pods_that_are_gone(address: str, folder: Path) -> None:
    found = read(address, folder)
    for name in ("steady", "resets", "twice"):
        assert number(found[name].arrivals_rate) == pytest.approx(RATE, rel=0.15), name
    # While there is a gap, less than half of the load is out of sight, and none is no data.
    assert RATE / 2 <= (number(found["gaps"].arrivals_rate) or 0.0) <= 1.1 * RATE
    for name in ("steady", "resets", "gaps", "twice"):
        assert (found[name].complete, found[name].queued) == (True, 3.0), name
    assert found["deleted"].numbers() == {}
    assert [s.kv_usage for s in found.values()] == [0.5, NO_DATA, NO_DATA, 0.25, NO_DATA]


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_our_clock_does_not_count(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + seconds)
    assert number(read(address, folder)["steady"].arrivals_rate) == pytest.approx(RATE, rel=0.15)


async def refusal(address: str, folder: Path) -> PrometheusUnavailable:
    with (
        closing(PrometheusClient(address, 30.0, Credentials(folder))) as client,
        pytest.raises(PrometheusUnavailable) as caught,
    ):
        await client.query("vector(1)")
    return caught.value


async def test_a_query_that_takes_too_long_is_given_up(address: str, folder: Path) -> None:
    with (
        closing(PrometheusClient(address, 0.5, Credentials(folder))) as client,
        pytest.raises(PrometheusUnavailable) as caught,
    ):
        await client.query("sum_over_time(vector(1)[500d:1s])")
    assert caught.value.retry


async def test_who_shows_nothing_or_the_wrong_thing_is_told_so(address: str, folder: Path) -> None:
    (folder / "password").write_text("swordfish")
    error = await refusal(address, folder)
    assert "does not let us in: HTTP 401; check prometheus.credentialsSecret" in str(error)
    assert "swordfish" not in str(error)
    (folder / "password").unlink()
    assert "holds neither token nor" in str(await refusal(address, folder))
    (folder / "token").write_text("a.b.c")
    assert "HTTP 401" in str(await refusal(address, folder))


async def test_a_secret_that_is_mended_counts_at_once(address: str, folder: Path) -> None:
    (folder / "password").write_text("swordfish")
    with closing(PrometheusClient(address, 30.0, Credentials(folder))) as client:
        with pytest.raises(PrometheusUnavailable):
            await client.query("vector(1)")
        (folder / "password").write_text(PASSWORD)
        assert await client.query("vector(1)") == {}


async def test_a_certificate_of_an_unknown_authority_is_named(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    error = await refusal(address, folder)
    assert "cannot be reached: SSLError; is its authority in prometheus.caConfigMap?" in str(error)
