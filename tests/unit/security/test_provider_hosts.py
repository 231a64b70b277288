"""A provider's key goes only to hosts that its own Secret names (DESIGN §4), on every path."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from fake_cluster import FakeCluster
from gateway_world import Upstream, World, chat, encoded, provider, service, spillover, until, world
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from overspill.api.base import InvalidObject
from overspill.api.provider import URL_PATTERN, InferenceProvider
from overspill.cluster.kinds import INFERENCE_PROVIDER
from overspill.cluster.watching import Event
from overspill.gateway.secret import read_secret
from overspill.gateway.settings import Settings
from overspill.gateway.watch import Feeder

HOSTS = "overspill.dev/provider-hosts"
KEY = "sk-canary-7f3a"
ONLY = "metadata.name=cloud-key"


def secret(hosts: str) -> dict[str, Any]:
    metadata = {"name": "cloud-key", "annotations": {HOSTS: hosts}}
    return {"metadata": metadata, "data": encoded(**{"api-key": KEY})}


def at(url: str) -> InferenceProvider:
    return InferenceProvider.parse(provider(Upstream(), baseURL=url))


SPELLINGS = [
    # base URL, annotation, whether the key may go there
    ("https://llm.example.com/v1", "llm.example.com", True),
    ("https://LLM.Example.COM/v1", "llm.example.com", True),
    ("https://llm.example.com/v1", "LLM.EXAMPLE.com", True),
    ("https://llm.example.com./v1", "llm.example.com", True),
    ("https://llm.example.com/v1", "llm.example.com.", True),
    ("https://llm.example.com:8443/v1", "llm.example.com:8443", True),
    ("https://llm.example.com:8443/v1", "llm.example.com.:8443", True),
    ("https://llm.example.com:443/v1", "llm.example.com", True),
    ("https://llm.example.com/v1", "llm.example.com:443", True),
    ("http://llm.example.com/v1", "llm.example.com", True),
    ("http://llm.example.com/v1", "llm.example.com:80", True),
    ("https://[2001:db8::1]:8443/v1", "[2001:DB8::1]:8443", True),
    ("https://[2001:db8::1]/v1", "[2001:db8::1]", True),
    ("https://[2001:db8::1]/v1", "2001:db8::1", True),
    ("https://xn--bcher-kva.example/v1", "xn--bcher-kva.example", True),
    ("https://llm.example.com", "a.example , llm.example.com,", True),
    ("https://llm.example.com:8443/v1", "llm.example.com", False),
    ("https://llm.example.com:8443/v1", "llm.example.com:443", False),
    ("https://llm.example.com:8443/v1", "llm.example.com:08443x", False),
    ("https://llm.example.com/v1", "llm.example.com:8443", False),
    ("https://llm.example.com/v1", "llm.example.com:", False),
    ("https://llm.example.com/v1", "llm.example.com:*", False),
    ("http://llm.example.com/v1", "llm.example.com:443", False),
    ("http://llm.example.com:443/v1", "llm.example.com", False),
    ("https://[2001:db8::1]:8443/v1", "[2001:db8::1]", False),
    ("https://[2001:db8::1]:8443/v1", "2001:db8::1:8443", False),
    ("https://[2001:db8::1]/v1", "2001:db8:", False),
    ("https://llm.example.com/v1", "", False),
    ("https://llm.example.com/v1", ",", False),
    ("https://llm.example.com/v1", "*", False),
    ("https://llm.example.com/v1", "*.example.com", False),
    ("https://llm.example.com/v1", "example.com", False),
    ("https://llm.example.com/v1", "xllm.example.com", False),
    ("https://llm.example.com.evil.example/v1", "llm.example.com", False),
    ("https://evil.example/llm.example.com/v1", "llm.example.com", False),
    ("https://evil.example:443/v1", "llm.example.com", False),
    ("https://xn--bcher-kva.example/v1", "bücher.example", False),
    ("https://[::ffff:10.0.0.1]/v1", "10.0.0.1", False),
    ("https://0x7f.1/v1", "127.0.0.1", False),
    ("https://[dead]/v1", "dead", False),
    ("https://[::1::]/v1", "", False),
]  # fmt: skip


@pytest.mark.parametrize(("url", "hosts", "allowed"), SPELLINGS)
def test_a_host_is_the_same_however_it_is_spelled_and_no_other(
    url: str, hosts: str, allowed: bool
) -> None:
    key, reason, message = read_secret(at(url), secret(hosts))
    assert (key, reason) == ((KEY, "Ready") if allowed else ("", "SecretHostNotAllowed"))
    assert KEY not in message


REFUSED = [
    "https://user:secret@llm.example.com/v1",
    "https://llm.example.com@evil.example/v1",
    "https://llm.example.com\\@evil.example/v1",
    "https://llm.example.com\\.evil.example/v1",
    "https://llm.example.com#@evil.example/v1",
    "https://evil.example?llm.example.com/v1",
    "https://llm\uff20example.com/v1",  # a full-width @: urlsplit raises
    "https://llm\uff0eexample.com/v1",  # a full-width dot: IDNA reads a dot
    "https://bücher.example/v1",
    "https://llm.example.com%2eevil.example/v1",
    "https://llm.example.com\t.evil.example/v1",
    "https://llm.example.com/v1\n",
    "https://llm.example.com;curl/v1",
    "https://$IFS/v1",
    "https://a'b/v1",
    "https://-overwrite/v1",
    "https://[::1/v1",
    "https://[fe80::1%25eth0]/v1",
    "https://llm.example.com../v1",
    "https:///v1",
    "https:/llm.example.com/v1",
    "//llm.example.com/v1",
    "HTTPS://llm.example.com/v1",
    "https://llm.example.com:/v1",
    "https://llm.example.com:8o/v1",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_can_be_read_in_two_ways_is_no_provider(url: str) -> None:
    with pytest.raises(InvalidObject, match="baseURL"):
        at(url)


URLISH = st.text("ab.:/@#?[]\\%;$'-_1\uff20\uff0eü \t", max_size=24)
NEARLY = st.builds("https://{}{}/v1".format, st.sampled_from(["", "llm.example.com"]), URLISH)


@given(NEARLY | st.from_regex(URL_PATTERN, fullmatch=True))
def test_whatever_is_accepted_has_one_host_for_the_check_and_for_the_client(url: str) -> None:
    """urlsplit decides whether the key may go there, yarl (aiohttp's) where it goes."""
    try:
        found = at(url)
    except InvalidObject:
        return
    read_secret(found, secret("llm.example.com"))  # never raises, or a watch would end
    try:
        sent_to = URL(found.spec.url + "/chat/completions").host or ""
    except ValueError:
        return  # nobody is called
    if found.spec.host:  # else the key goes nowhere
        assert ip_or_name(sent_to) == ip_or_name(found.spec.host)
        assert URL(found.spec.url).port == found.spec.destinations[0][1]


def ip_or_name(host: str) -> object:
    """yarl shortens IPv6 addresses."""
    try:
        return ip_address(host)
    except ValueError:
        return host.removesuffix(".")


@given(URLISH, st.text(max_size=30))
def test_any_annotation_is_read_and_lets_nothing_through_that_it_does_not_name(
    noise: str, hosts: str
) -> None:
    key, _, _ = read_secret(at("https://llm.example.com/v1"), secret(f"{noise},{hosts}"))
    assert (key == KEY) == any(
        h.strip().lower().removesuffix(":443").removesuffix(".") == "llm.example.com"
        for h in f"{noise},{hosts}".split(",")
    )


def test_the_command_that_is_shown_is_safe_to_paste() -> None:
    _, _, message = read_secret(at("https://llm.example.com/v1"), secret("other"))
    _, _, command = message.partition(": ")
    assert command == (
        f"kubectl annotate secret -n team-a cloud-key {HOSTS}=llm.example.com --overwrite"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://llm.example.com:8443/v1", "llm.example.com:8443"),
        ("https://[2001:db8::1]:8443/v1", "'[2001:db8::1]:8443'"),
    ],
)
def test_the_command_names_the_port_where_it_is_not_the_default(url: str, shown: str) -> None:
    _, _, message = read_secret(at(url), secret("llm.example.com"))
    assert message.endswith(f" {HOSTS}={shown} --overwrite")
    _, reason, _ = read_secret(at(url), secret(shown.strip("'")))
    assert reason == "Ready"


@asynccontextmanager
async def followed(w: World) -> AsyncIterator[FakeCluster]:
    """The gateway's own watches on its state."""
    cluster = FakeCluster()
    feeder = Feeder(cluster, w.state, Settings("overspill-system"))  # type: ignore[arg-type]
    cluster.queues[ONLY] = asyncio.Queue()
    feeder.start(lambda: None, lambda: None)
    try:
        yield cluster
    finally:
        await feeder.close()
        assert not feeder.failed


async def test_the_key_stays_with_its_host_while_url_and_annotation_change_under_load() -> None:
    """Two clouds at 127.0.0.1 and 127.0.0.2; the Secret names only the first, if any."""
    rng = random.Random(4)
    async with (
        Upstream().serving() as good,
        Upstream(address=("127.0.0.2", 0)).serving() as evil,
        world() as w,
        followed(w) as cluster,
    ):
        w.state.put_service(service(spillover=spillover(when=["ReplicasUnavailable", "ColdStart"])))
        cluster.send(INFERENCE_PROVIDER, "ADDED", provider(good))
        named = ":".join(map(str, good.address))
        cluster.queues[ONLY].put_nowait(Event("SYNC", items=[secret(named)]))
        known = w.state.providers
        await until(lambda: bool(known) and known["team-a/cloud"].secret == KEY)
        for _ in range(30):
            target = rng.choice([good, evil])
            cluster.send(INFERENCE_PROVIDER, "MODIFIED", provider(target))
            url = target.url
            await until(lambda url=url: known["team-a/cloud"].resource.spec.url == url)
            # Now, and once more when the Secret was read again, whatever it says.
            for hosts in (None, rng.choice([named, "", "127.0.0.1"]), named):
                if hosts is not None:
                    cluster.queues[ONLY].put_nowait(Event("SYNC", items=[secret(hosts)]))
                requests = [chat(w) for _ in range(3)]
                await asyncio.wait(requests, timeout=0.015)
                for request in requests:
                    request.cancel()
        cluster.send(INFERENCE_PROVIDER, "MODIFIED", provider(good))
        cluster.queues[ONLY].put_nowait(Event("SYNC", items=[secret(named)]))
        assert (await asyncio.wait_for(chat(w), 20))[1]["x-overspill-destination"] == "team-a/cloud"
        assert evil.seen_headers == []
        assert {h["Authorization"] for h in good.seen_headers} == {f"Bearer {KEY}"}
