"""What an engine really computes at a time is learned from what it says, on a virtual clock."""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from gateway_world import Upstream, World, chat, endpoint_slice, runtime, service, until
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.keys import ClientKey
from overspill.api.service import InferenceService
from overspill.gateway.balance import Replica
from overspill.gateway.choice import Ticket
from overspill.gateway.concurrency import FITS, TOLERATED, Limit, Report, learn, stands
from overspill.gateway.errors import ReplicaFailed
from overspill.gateway.reports import OF_TENANT, Gauges, Reports, counts, gauges_of
from overspill.gateway.share import Share
from overspill.gateway.state import FRESH_SECONDS, LEARNED_SECONDS, State

STEP = 0.05  # seconds of an engine's step, and of the clock
LLAMACPP = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
NAMES = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@dataclass
class Run:
    """An engine that computes ``real`` at a time, and gateways that learn each by itself.

    A gateway's clients always want ``offered`` requests in flight.
    """

    real: int
    limits: list[Limit]
    bound: int
    now: float = 0.0
    running: list[tuple[float, int]] = field(default_factory=list)  # end, and whose it is
    waiting: deque[tuple[float, int]] = field(default_factory=deque)  # seconds, and whose
    ended: int = 0

    def go(self, seconds: float, offered: int = 10_000) -> list[int]:
        """Return how many waited in the engine at each step."""
        chance, queued = random.Random(7), []
        for number in range(round(seconds / STEP)):
            self.now += STEP
            self._compute()
            held = Counter(owner for _, owner in (*self.running, *self.waiting))
            for rank, limit in enumerate(self.limits):
                slots = Share(rank, len(self.limits)).slots(0, limit.value)
                for _ in range(min(slots, offered) - held[rank]):
                    self.waiting.append((chance.uniform(0.5, 3.5), rank))
                if number % 20 == 5 * rank:  # once a second, each at its time
                    report = Report(len(self.running), len(self.waiting))
                    self.limits[rank] = learn(limit, report, self.bound, self.now)
            queued.append(len(self.waiting))
        return queued

    def _compute(self) -> None:
        left = [one for one in self.running if one[0] > self.now]
        self.ended += len(self.running) - len(left)
        while self.waiting and len(left) < self.real:
            seconds, owner = self.waiting.popleft()
            left.append((self.now + seconds, owner))
        self.running = left

    @property
    def values(self) -> list[int]:
        return [limit.value for limit in self.limits]


@pytest.mark.parametrize("gateways", [1, 3])
@pytest.mark.parametrize(
    ("configured", "real", "bound"),
    [(64, 10, 64), (64, 40, 64), (4, 4, 4), (8, 2, 8), (8, 40, 1024), (8, 200, 1024)],
)
def test_the_limit_comes_to_what_an_engine_computes(
    configured: int, real: int, bound: int, gateways: int
) -> None:
    run = Run(real, [Limit(configured)] * gateways, bound)
    run.go(30.0)
    before = run.ended
    queued = run.go(60.0)
    assert all(0.8 * real <= value <= real + max(2, real / 5) for value in run.values)
    assert sum(queued) / len(queued) <= max(gateways, real / TOLERATED)
    assert run.ended - before >= 0.95 * real * 60.0 / 2.0  # of two seconds each


def test_more_is_tried_soon_after_one_request_had_all_of_the_cache() -> None:
    run = Run(1, [Limit(64)], 64)
    run.go(20.0)
    assert run.values == [1]
    run.real = 64
    run.go(25.0)
    assert run.values == [64]


@pytest.mark.parametrize(
    "reports",
    [
        [(0, 0)] * 60,  # idle
        [(1, 0)] * 60,  # one slow request
        [(64, 0)] * 60,  # full
        [(20, 2)] * 60,  # prompts of the next step
        [(20, 9), (20, 0)] * 30,  # a burst now and then
        [(0, 50)] * 60,  # nothing is computed: that says nothing of how much could be
        [(n, 60 - n) for n in range(60)],  # a burst that is still being worked in
        [(n // 2, 60 - n // 2) for n in range(2, 120)],  # long prompts: one more in two seconds
    ],
)
def test_what_says_nothing_changes_nothing(reports: Sequence[tuple[int, int]]) -> None:
    limit = Limit(64)
    for now, (running, waiting) in enumerate(reports):
        limit = learn(limit, Report(running, waiting), 64, float(now))
    assert limit.value == 64


def test_one_that_waits_for_one_is_little_evidence_and_more_of_it_comes_to_the_same() -> None:
    limit, values = Limit(64), []
    for now in range(13):
        limit = learn(limit, Report(1, 1), 64, float(now))
        values.append(limit.value)
    assert values == [64, 64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1]
    assert learn(Limit(8, queued_since=0.0, most=3), Report(2, 1), 64, 2.0).value == 4
    assert learn(Limit(8, queued_since=0.0, most=6), Report(6, 9), 64, 2.0).value == 6


@pytest.mark.parametrize(
    ("reports", "leaving", "expected"),
    [
        ([(2, 1)], 0.5, False),  # for once
        ([(2, 1), (2, 1)], 0.5, True),
        ([(2, 1), (2, 1)], 1.0, False),  # until it is asked again none waits any more
        ([(2, 9), (3, 8)], 0.5, False),  # they are let in
        ([(2, 1), (2, 0), (2, 1)], 0.5, False),
        ([(8, 4), (8, 4)], 0.5, False),  # it computes all that it is taken to
        ([(2, 1)] * 9, 0.5, False),  # by then it is known that it computes no more
        ([(0, 3), (0, 3)], 0.5, False),
    ],
)
def test_slots_before_a_queue_that_stands_are_none(
    reports: list[tuple[int, int]], leaving: float, expected: bool
) -> None:
    limit, found = Limit(8), False
    for now, counted in enumerate(reports):
        report = Report(*counted)
        found = stands(limit, report, leaving)
        limit = learn(limit, report, 8, float(now))
    assert found is expected


COUNTS = st.one_of(st.integers(0, 80), st.integers(0, 1_000_000))


@given(
    reports=st.lists(st.tuples(COUNTS, COUNTS, st.floats(0.0, 20.0)), max_size=40),
    bound=st.integers(1, 64),
)
def test_it_stays_within_its_bounds_and_above_what_is_computed(
    reports: list[tuple[int, int, float]], bound: int
) -> None:
    limit, now, most = Limit(bound), 0.0, 0
    for running, waiting, seconds in reports:
        now, most = now + seconds, max(most, running)
        before, limit = limit.value, learn(limit, Report(running, waiting), bound, now)
        assert 1 <= limit.value <= bound
        assert limit.value >= min(before, running)
        assert limit.value <= before or waiting <= running / FITS or limit.value <= most


def page(running: float, waiting: float) -> str:
    """As vLLM writes it, with two ranks; the third gauge's name begins as the second's."""
    lines = []
    for name, value in zip(NAMES, (running, waiting), strict=True):
        lines += [f"# HELP {name} Number.", f"# TYPE {name} gauge"]
        lines += [f'{name}{{engine="{rank}",model_name="m }} 7"}} {value}' for rank in (0, 1)]
    lines.append(f'{NAMES[1]}_by_reason{{engine="0",reason="capacity"}} 5.0')
    return "\n".join(lines) + "\n"


def test_a_page_is_read_over_all_ranks() -> None:
    assert counts(page(3.0, 1.0).encode(), NAMES) == [6, 2]
    assert counts(page(3.0, 1.0).encode(), NAMES[:1] * 2) == [6, 6]  # a runtime may say so


@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf"), 1e7])
def test_what_is_no_count_is_no_report(value: float) -> None:
    with pytest.raises(ValueError, match="no count"):
        counts(page(1.0, value).encode(), NAMES)


@pytest.mark.parametrize(
    "more",
    [
        f"{NAMES[0]} 1\n" * 1_000,
        f"{NAMES[0]}{{" + ",".join(f'a{number}=""' for number in range(3_000)) + "} 1\n",
    ],
    ids=["series", "labels"],
)
def test_a_page_that_says_too_much_is_not_parsed(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.reports.text_string_to_metric_families", None)
    with pytest.raises(ValueError, match="more than 16384 bytes"):
        counts(page(1.0, 1.0).encode() + more.encode(), NAMES)


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_any_page_is_a_report_or_none(ends: list[bytes]) -> None:
    text = b"\n".join(NAMES[n % 2].encode() + end for n, end in enumerate(ends))
    with contextlib.suppress(ValueError):
        assert len(counts(text, NAMES)) == 2


@pytest.mark.parametrize(
    ("engine", "args", "found"),
    [
        ({"runtime": "vllm"}, [], Gauges("/metrics", *NAMES, 64)),
        ({}, [], Gauges("/metrics", *LLAMACPP, 4)),
        ({"runtime": "own"}, ["-n", "$(MAX_SEQUENCES)"], Gauges("/m", "r", "w", 8)),
        ({"runtime": "own"}, [], Gauges("/m", "r", "w", 1024)),
        ({"runtime": "silent"}, [], None),
        ({"runtime": "gone"}, [], None),
    ],
)
def test_where_an_engine_says_what_it_does(
    engine: dict[str, Any], args: list[str], found: Gauges | None
) -> None:
    state = State(lambda: 0.0, 1)
    gauges = {"path": "/m", "running": "r", "waiting": "w"}
    state.put_runtime(runtime(args=args, metrics=gauges))
    state.put_runtime(runtime("silent", metrics={"running": "r"}))
    state.put_runtime(runtime(image=1))  # of a later version: the old form holds
    resource = InferenceService.parse(service(engine=engine))
    assert gauges_of(resource, state.runtimes) == found
    state.replace_runtimes([])
    assert not state.runtimes


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"engine": {"runtime": "vllm", "batching": {"maxSequences": 9}}}


async def test_what_others_have_at_a_replica_counts(gateway: World, engine: Upstream) -> None:
    async with Upstream(gauges=page(2.0, 3.0)).serving() as busy:
        gateway.replicas(engine, busy)
        replica = gateway.state.services["team-a/chat"].admission.replicas[busy.address]
        assert (await chat(gateway))[0] == 200
        await until(lambda: replica.others == 10)
        before = len(busy.bodies)
        assert [(await chat(gateway))[0] for _ in range(4)] == [200] * 4
        assert len(busy.bodies) == before


class Pages:
    """Plays the connections: of pods on 10.66.* no page comes, or only after a while."""

    def __init__(self, *, hang: bool) -> None:
        self.hang = hang
        self.asked: list[str] = []

    async def page(self, address: tuple[str, int], *_: object) -> bytes:
        self.asked.append(address[0])
        if not address[0].startswith("10.66."):
            return page(1.0, 1.0).encode()
        if self.hang:
            await asyncio.Event().wait()
        raise ReplicaFailed("nothing came", sent=False)


def at_work(state: State, name: str, namespace: str, *hosts: str) -> list[Replica]:
    state.put_service(service(name, namespace, engine={"runtime": "vllm"}))
    pods = endpoint_slice(*((host, 8000) for host in hosts), name=name, namespace=namespace)
    state.put_slice(pods)
    known = state.services[f"{namespace}/{name}"]
    known.arrivals = 1
    return list(known.admission.replicas.values())


async def test_pages_that_hang_hold_up_no_other_tenants() -> None:
    state, pages = State(lambda: 9.0, 1), Pages(hang=True)
    for number in range(2):
        hosts = [f"10.66.{number}.{pod}" for pod in range(40)]
        at_work(state, f"hangs-{number}", "hostile", *hosts)
    (own,) = at_work(state, "chat", "team-a", "10.0.0.1")
    rounds = Reports(state, pages)  # type: ignore[arg-type]
    rounds.round()
    await until(lambda: own.heard == 9.0, seconds=2.0)
    assert len(pages.asked) == OF_TENANT + 1


async def test_who_does_not_answer_is_asked_less_often_until_it_does() -> None:
    now, asked, pages = 0.0, [], Pages(hang=False)
    state = State(lambda: now, 1)
    (silent,) = at_work(state, "chat", "team-a", "10.66.0.1")
    rounds = Reports(state, pages)  # type: ignore[arg-type]
    while now < 40.0:
        state.services["team-a/chat"].arrivals += 1
        rounds.round()
        if silent.ask_after <= now:
            asked.append(now)
            await until(lambda: silent.silences == len(asked))
        now += 1.0
    assert asked == [0.0, 1.0, 3.0, 7.0, 15.0, 23.0, 31.0, 39.0]
    silent.address = ("10.0.0.1", 8000)
    now = 60.0
    state.services["team-a/chat"].arrivals += 1
    rounds.round()
    await until(lambda: silent.silences == 0)
    key = ClientKey("ci", "", "team-a", ("*/*",))
    state.services["team-a/chat"].admission.waiting.add(Ticket(key, (), None))
    rounds.round()  # nothing came since, and somebody waits
    await until(lambda: len(pages.asked) == len(asked) + 2)


def heard(gateway: World, engine: Upstream) -> Callable[[int, int, int, float], Replica]:
    gateway.plane.reports.round = lambda: None  # nothing is said or forgotten but here
    known = gateway.state.services["team-a/chat"]
    bound = known.resource.max_sequences

    def hear(running: int, waiting: int, own: int, now: float) -> Replica:
        replica = known.admission.replicas[engine.address]
        known.hear(replica, Report(running, waiting), own, bound, now)
        return replica

    return hear


async def test_where_a_queue_stands_nothing_more_is_sent_until_it_has_gone(
    gateway: World, engine: Upstream
) -> None:
    hear = heard(gateway, engine)
    known, now = gateway.state.services["team-a/chat"], gateway.state.clock()
    known.admission.mean_service_seconds = 60.0
    assert [hear(1, 2, 0, now + n).blocked for n in (0, 1)] == [False, True]
    assert known.admission.slots(now) == (9, 0)
    request = chat(gateway)
    await until(lambda: len(known.admission.waiting) == 1)
    assert not hear(2, 0, 0, now + 2).blocked
    assert (await request)[0] == 200
    known.admission.mean_service_seconds = 60.0
    assert [hear(1, 2, 0, now + n).blocked for n in (3, 4)] == [False, True]
    known.forget(now + 4.1 + FRESH_SECONDS)
    assert known.admission.slots(now) == (9, 9), "what was said is too old"


async def test_what_is_learned_is_divided_and_forgotten(gateway: World, engine: Upstream) -> None:
    hear = heard(gateway, engine)
    gateway.state.set_share(Share(0, 2))
    assert [hear(4, 5, 3, t).slots for t in (0.0, 1.0, 2.0)] == [5, 5, 2]
    assert "overspill_gateway_slots{" in (page := await gateway.metrics())
    assert 'name="chat",service_namespace="team-a"} 2.0' in page
    known = gateway.state.services["team-a/chat"]
    known.forget(2.0 + FRESH_SECONDS)
    assert hear(4, 5, 3, 2.0).others == 6
    known.forget(2.1 + FRESH_SECONDS)
    replica = known.admission.replicas[engine.address]
    assert (replica.others, replica.slots) == (0, 2)
    known.forget(2.1 + LEARNED_SECONDS)
    assert replica.slots == 5


async def test_nothing_of_ours_counts_twice(gateway: World, engine: Upstream) -> None:
    hear = heard(gateway, engine)
    engine.gate.clear()
    tasks = [chat(gateway) for _ in range(3)]
    await until(lambda: len(engine.bodies) == 3)
    assert [hear(*report, 0.0).others for report in ((3, 0, 0), (2, 0, 1), (3, 0, 5))] == [0, 0, 0]
    assert hear(3, 2, 1, 0.0).others == 2
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert hear(3, 2, 3, 0.0).others == 2  # ours had ended when the page came


async def test_another_process_or_another_option_begins_anew(
    gateway: World, engine: Upstream, spec: dict[str, Any]
) -> None:
    hear = heard(gateway, engine)
    for now in (0.0, 1.0, 2.0):
        hear(4, 5, 9, now)
    gateway.replicas()
    gateway.replicas(engine)
    known = gateway.state.services["team-a/chat"]
    assert known.admission.replicas[engine.address].slots == 9
    for now in (0.0, 1.0, 2.0):
        assert hear(4, 5, 9, now)
    assert known.admission.replicas[engine.address].slots == 4
    spec["engine"]["batching"]["maxSequences"] = 7
    gateway.state.put_service(service(**spec))
    assert known.admission.replicas[engine.address].slots == 7
