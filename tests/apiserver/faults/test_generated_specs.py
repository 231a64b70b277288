"""Row 27: whatever is sent is refused with the field's path, or shown in a condition.

`make test` sends a thousand objects, `make fuzz` ten thousand; FUZZ_SEED repeats a run.
"""

import asyncio
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from statistics import median

import aiohttp
import pytest
from faulty_world import ZERO, edit_of, figure, followed
from operator_world import NOWHERE, World
from specs import CRDS, Specs

from overspill.api.names import API_VERSION
from overspill.cluster import Cluster, NotFound
from overspill.cluster.kinds import DEPLOYMENT, INFERENCE_SERVICE

FUZZ = bool(os.environ.get("OVERSPILL_FUZZ"))  # `make fuzz`
COUNT = 10_000 if FUZZ else 1_000
SEED = int(os.environ.get("FUZZ_SEED", "27"))
BATCH = 1_000  # objects at a time, then they are deleted
SENDERS = 4
SHOWN_SECONDS = 90
EDITS = 15
PROMPT_SECONDS = 2.0  # in which an edit shows; in `make test` other files run beside this one
# A path, or the words for what has none: no JSON, too large, another version. An unknown field at
# the top of an object has no path beside its name.
NAMED = re.compile(
    r"(spec|metadata|apiVersion|kind)\b|unknown field \"|API version|too large|larger than|"
    r"exceeded|json|JSON|invalid character|unmarshal|nesting|not valid|the name of the object"
)


@pytest.fixture
def server(world: World) -> Iterator[str]:
    """The API server with our rights, for bodies that no client would encode."""
    with subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], env=world.kube.env, stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline() if process.stdout else ""
        yield f"http://{line.split()[-1]}"
        process.terminate()


@dataclass
class Sender:
    """Creates generated objects, and remembers what became of them."""

    session: aiohttp.ClientSession
    url: str
    specs: Specs
    refused: Counter[int] = field(default_factory=Counter)
    taken: set[tuple[str, str]] = field(default_factory=set)  # kind and name
    unnamed: list[str] = field(default_factory=list)  # refusals that say nothing

    async def send(self, names: Iterator[str]) -> None:
        """Send objects of these names, one after the other."""
        for name in names:
            kind, text = self.specs.draw(name)
            url = f"{self.url}/{CRDS[kind]}?fieldValidation=Strict"
            headers = {"Content-Type": "application/json"}
            async with self.session.post(url, data=text.encode(), headers=headers) as answer:
                body = await answer.text()
            if answer.status == 201:
                self.taken.add((kind, name))  # a spoilt name is always refused
                continue
            self.refused[answer.status] += 1
            message = json.loads(body)["message"]
            if answer.status >= 500 or not NAMED.search(message):
                self.unnamed.append(f"{answer.status} {message[:300]} for {text[:300]}")


async def neighbour(cluster: Cluster, world: World, numbers: Iterator[int], edits: int) -> float:
    """Edit a good service so many times; return the seconds of the median until it shows."""
    took = []
    for number in islice(numbers, edits):
        spec = {"model": {"uri": "oci://registry.example/models/none:1"}, **NOWHERE,
                "scaling": ZERO, "pod": {"annotations": {"edit": str(number)}}}  # fmt: skip
        obj = {"apiVersion": API_VERSION, "kind": "InferenceService", "spec": spec,
               "metadata": {"name": "neighbour", "namespace": world.namespace}}  # fmt: skip
        started = time.monotonic()
        await cluster.apply(INFERENCE_SERVICE, obj, manager="neighbour")
        async with asyncio.timeout(SHOWN_SECONDS):
            while await shown(cluster, world) != number:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.02)
        took.append(time.monotonic() - started)
    return median(took)


async def shown(cluster: Cluster, world: World) -> int:
    try:
        return edit_of(await cluster.get(DEPLOYMENT, world.namespace, "neighbour-engine"))
    except NotFound:
        return 0


async def untold(cluster: Cluster, world: World, taken: set[tuple[str, str]]) -> list[str]:
    """Services whose status says nothing about what they are now."""
    listing = await cluster.list(INFERENCE_SERVICE, world.namespace)
    return [
        s["metadata"]["name"]
        for s in listing.items
        if ("InferenceService", s["metadata"]["name"]) in taken
        and not any(
            c["type"] == "Ready" and c.get("observedGeneration") == s["metadata"]["generation"]
            for c in s.get("status", {}).get("conditions", [])
        )
    ]


async def all_told(cluster: Cluster, world: World, taken: set[tuple[str, str]]) -> None:
    """Wait until each has its status; fails when for so long no other one got it."""
    fewest, since = len(taken) + 1, time.monotonic()
    while names := await untold(cluster, world, taken):
        if len(names) < fewest:
            fewest, since = len(names), time.monotonic()
        assert time.monotonic() - since < SHOWN_SECONDS, names[:5]
        await asyncio.sleep(0.5)


async def test_generated_objects_are_refused_or_shown(
    world: World, cluster: Cluster, server: str, kubeconfig: str
) -> None:
    world.kube.kubectl("create", "quota", "none", "--hard=pods=0", "-n", world.namespace)
    operator = world.start()
    numbers, specs, totals = count(1), Specs(SEED), Counter[str]()
    url = f"{server}/apis/{API_VERSION}/namespaces/{world.namespace}"
    alone = await neighbour(cluster, world, numbers, EDITS)
    worst = 0.0
    with followed(kubeconfig, world.namespace) as gateway:
        async with aiohttp.ClientSession() as session:
            for batch in range(0, COUNT, BATCH):
                names = iter([f"g{batch + i}" for i in range(min(BATCH, COUNT))])
                sender = Sender(session, url, specs)
                await asyncio.gather(*(sender.send(names) for _ in range(SENDERS)))
                assert sender.unnamed == []
                await all_told(cluster, world, sender.taken)
                worst = max(worst, await neighbour(cluster, world, numbers, EDITS))
                services = [f"{world.namespace}/{n}" for k, n in sender.taken
                            if k == "InferenceService"]  # fmt: skip
                async with asyncio.timeout(SHOWN_SECONDS):
                    while not set(services) <= set(gateway.services):  # noqa: ASYNC110 - a poll
                        await asyncio.sleep(0.1)
                totals.update(sent=min(BATCH, COUNT), refused=sum(sender.refused.values()),
                              shown=len(services))  # fmt: skip
                await clear(session, url)
    assert operator.process.poll() is None
    told = operator.log.read_text()
    assert "Traceback" not in told
    assert "watches ended" not in told
    assert totals["shown"] > COUNT / 10
    assert totals["refused"] > COUNT / 10
    # A few steps bring a service up; what cannot be brought up is not tried over and over.
    per_service = operator.reconciles / totals["shown"]
    assert per_service < 40
    assert worst <= max(2 * alone, 0 if FUZZ else PROMPT_SECONDS)
    figure(
        "27", f"{COUNT} generated objects, seed {SEED}",
        f"{dict(totals)}; {per_service:.1f} reconciles per service; a neighbour's edit took "
        f"{alone:.2f} s before and {worst:.2f} s beside them (medians)",
    )  # fmt: skip


async def clear(session: aiohttp.ClientSession, url: str) -> None:
    """Delete what was generated, so that one batch stands beside the neighbour at a time."""
    for plural in CRDS.values():
        only = "?fieldSelector=metadata.name!=neighbour"
        async with session.delete(f"{url}/{plural}{only}") as answer:
            assert answer.status == 200, await answer.text()
