"""Who gets a full pool's accelerators: order, margin, and the optimum by trying everything."""

import itertools
import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.autoscaler.sharing import CORE, LEAST, Claim, Grant, Replica, _pack, share


def claim(name: str, *savings: float, wanted: int | None = None, **more: object) -> Claim:
    count = len(savings) if wanted is None else wanted
    return Claim(f"team-a/{name}", count, savings=savings, **more)  # type: ignore[arg-type]


def counts(claims: Sequence[Claim], room: int) -> dict[str, int]:
    grants = share(claims, room)
    return {
        c.service.removeprefix("team-a/"): grants[c.service].replicas
        if c.service in grants
        else c.wanted
        for c in claims
    }


def test_accelerators_go_where_they_save_most() -> None:
    claims = [claim("a", 5.0, 1.0), claim("b", 4.0, 3.0, 2.0)]
    assert counts(claims, 3) == {"a": 1, "b": 2}
    assert counts(claims, 5) == {"a": 2, "b": 3}
    assert counts(claims, 0) == {"a": 0, "b": 0}
    assert share(claims, 5) == {}, "nobody is limited where all is there"


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (claim("b", wanted=1, stranded=True), claim("a", 9.0, priority=5), "b may not spill"),
        (claim("b", 1.0, held=1, recent=True), claim("a", 9.0, priority=5), "a short while ago"),
        (claim("b", 1.0, priority=1), claim("a", 9.0), "priority 1 of b goes before 0"),
        (claim("b", 3.0), claim("a", 1.0), "a saves $1.00 per GPU-hour here, b $3.00"),
        (claim("b", 3.0), claim("a", 9.0, 8.0, size=4, floor=1), "a saves $2.00"),
        (claim("b", 1.0, held=1), claim("a", 1.1), "b $1.00, which runs"),
        (claim("b", 1.0, floor=1), claim("a", 9.0), "nobody else holds more than minReplicas"),
        (claim("b", 1.0), claim("a", 9.0, barred=True), "could not be used"),
        (claim("b", 1.0), claim("a", 9.0, 8.0, held=1, floor=1, first=True), "first replica is"),
        (claim("b", wanted=1, held=1), claim("a", 9.0), "nobody knows"),
        (
            claim("b", wanted=1, stranded=True),
            claim("a", 9.0, held=1, recent=True, priority=9),
            "b may not spill",
        ),
    ],
)
def test_what_goes_before_what(first: Claim, second: Claim, why: str) -> None:
    room = first.size + second.floor * second.size
    for claims in ([first, second], [second, first]):
        grants = share(claims, room)
        assert list(grants) == [second.service]
        assert grants[second.service].replicas == second.floor
        text = f"cluster full: {second.floor} of {second.wanted} wanted replicas granted; "
        assert grants[second.service].why.startswith(text)
        assert why in grants[second.service].why


def test_what_runs_gives_way_to_what_is_clearly_better() -> None:
    assert counts([claim("a", 1.5), claim("b", 1.0, held=1)], 1) == {"a": 1, "b": 0}


def test_services_of_other_namespaces_are_not_named() -> None:
    stranger = Claim("team-b/secret", 1, savings=(9.0,), held=1)
    why = share([stranger, claim("a", 1.0)], 1)["team-a/a"].why
    assert why.endswith("a saves $1.00 per GPU-hour here, another namespace's service $9.00")


def test_a_large_replica_takes_the_place_of_small_ones_where_that_saves_more() -> None:
    small = [claim(name, 1.0) for name in "cdef"]
    assert counts([claim("a", 5.0, size=4), *small], 5)["a"] == 1
    assert counts([claim("a", 3.0, size=4), *small], 4) == {"a": 0, **dict.fromkeys("cdef", 1)}


def test_equal_claims_never_swing() -> None:
    claims = [claim(name, 1.0) for name in "cab"]
    assert counts(claims, 1) == {"a": 1, "b": 0, "c": 0}
    assert counts(claims[::-1], 1) == {"a": 1, "b": 0, "c": 0}


def probing(claims: Sequence[Claim], room: int, *, probes: bool = False) -> set[str]:
    found = share(claims, room, probes=probes)
    return {service[-1] for service, grant in found.items() if grant.probe}


def test_the_next_of_each_size_looks_for_room_and_nobody_while_a_place_changes_hands() -> None:
    held = claim("z", 9.0, held=1)
    waiting = [claim("a", 3.0), claim("b", 2.0), claim("c", 8.0, size=4), claim("d", 4.0, size=4)]
    assert probing([held, *waiting], 1) == {"a", "c"}
    assert probing([held, *waiting], 1, probes=True) == {"a", "b", "c", "d"}
    keeps = claim("b", 2.9, waiting=True)
    assert probing([held, waiting[0], keeps], 1) == {"b"}, "a probe does not move for a trifle"
    assert probing([claim("z", 9.0), *waiting], 1) == set(), "z's place is not to be taken"


def worth(claims: Sequence[Claim], granted: Mapping[str, int]) -> float:
    return sum(sum(c.savings[: granted[c.service]]) for c in claims)


services = st.lists(
    st.tuples(
        st.lists(st.floats(0.01, 9), min_size=1, max_size=4),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=4,
)


@given(services, st.integers(1, 24))
@settings(max_examples=50, deadline=None)
def test_nothing_that_fits_saves_more(described, room) -> None:
    """Exact without a margin; with one that holds what runs, within that margin."""
    claims = [
        Claim(f"a/{n}", len(s), min(held, len(s)), 0, size, savings=tuple(sorted(s)[::-1]))
        for n, (s, size, held) in enumerate(described)
    ]
    every = itertools.product(*(range(c.wanted + 1) for c in claims))
    best = max(
        worth(claims, dict(zip((c.service for c in claims), n, strict=True)))
        for n in every
        if sum(k * c.size for k, c in zip(n, claims, strict=True)) <= room
    )
    grants = share(claims, room)
    granted = {c.service: _granted(c, grants) for c in claims}
    assert sum(granted[c.service] * c.size for c in claims) <= room
    running = any(c.held for c in claims)
    assert worth(claims, granted) >= best / (1.2 if running else 1.0) - 24 * LEAST


def _granted(claim: Claim, grants: Mapping[str, Grant]) -> int:
    return grants[claim.service].replicas if claim.service in grants else claim.wanted


@given(
    st.lists(
        st.builds(
            Claim,
            service=st.sampled_from([f"{n}/{s}" for n in "ab" for s in "cdefgh"]),
            wanted=st.integers(0, 9),
            held=st.integers(0, 9),
            floor=st.integers(0, 3),
            size=st.integers(1, 16),
            priority=st.integers(-2, 2),
            savings=st.lists(st.floats(-5, 5), max_size=9).map(tuple),
            stranded=st.booleans(),
            recent=st.booleans(),
            waiting=st.booleans(),
            barred=st.booleans(),
        ),
        max_size=6,
        unique_by=lambda c: c.service,
    ),
    st.integers(0, 80),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_whatever_is_claimed_floors_and_room_are_kept(claims, room, probes) -> None:
    grants = share(claims, room, probes=probes)
    floors = sum(min(c.floor, c.wanted) * c.size for c in claims)
    used = sum(_granted(c, grants) * c.size for c in claims)
    assert used <= max(room, floors)
    for one in claims:
        assert min(one.floor, one.wanted) <= _granted(one, grants) <= one.wanted
        assert (one.service in grants) == (_granted(one, grants) < one.wanted)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_large_room_the_last_accelerators_are_shared_exactly(seed: int) -> None:
    """Against the room divided at will, which no whole replicas can beat."""
    state = seed + 1
    replicas = []
    for n in range(400):
        state = state * 1103515245 % 2**31
        size = (1, 2, 4, 8, 3)[state % 5]
        one = Claim(f"a/{n}", 1, size=size, savings=(size * (1 + state % 97 / 100),))
        replicas.append(Replica(one, 0, one.savings[0], (2, 0, True)))
    replicas.sort(key=lambda r: r.order)
    room, left, bound = 10 * CORE, 10.0 * CORE, 0.0
    for replica in replicas:
        part = min(1.0, left / replica.claim.size)
        bound, left = bound + part * replica.worth, left - part * replica.claim.size
    packed = _pack(replicas, room)
    assert sum(r.claim.size for r in packed) <= room
    assert sum(r.worth for r in packed) >= 0.999 * bound


def test_a_thousand_services_in_one_pool_are_quick() -> None:
    claims = [
        Claim(
            f"a/{n}", 5, n % 5, size=1 << n % 4, savings=tuple(5 - i + n / 1000 for i in range(5))
        )
        for n in range(1000)
    ]
    started = time.process_time()
    assert share(claims, 9000)
    assert time.process_time() - started < 2.0  # takes some hundredths
