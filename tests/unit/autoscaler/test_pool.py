"""Stories of one pool: when it is full, what there is in it, who moves, and what is of no use."""

from dataclasses import replace

from overspill.autoscaler.pool import (
    BAR,
    EMPTY,
    FULL_MEMORY,
    HOLD,
    ROOM_MEMORY,
    SETTLE,
    STUCK,
    Member,
    PoolState,
    Stake,
    Want,
    divide,
)
from overspill.autoscaler.sharing import Grant

LOOK = 5.0  # seconds


def member(name: str, placed: int, wanted: int, *savings: float, **more: object) -> Member:
    """A service that may spill; more of its stake, or of the member."""
    stake = {"size": 1, "may_spill": True, **{k: v for k, v in more.items() if k in STAKE}}
    rest = {k: v for k, v in more.items() if k not in STAKE and k != "late"}
    want = Want(wanted, bool(more.get("late")), savings)
    fields = {"min_replicas": 0, "count": placed, "placed": placed, **rest}
    return Member(f"team-a/{name}", Stake("gpus", **stake), want, **fields)  # type: ignore[arg-type]


STAKE = Stake.__dataclass_fields__
CHEAP = member("cheap", 3, 3, 1.0, 1.0, 1.0)
DEAR = member("dear", 1, 2, 5.0, 5.0, lacking=True)


class Story:
    """Looks at a pool every few seconds."""

    def __init__(self) -> None:
        self.now = 1e6
        self.state: PoolState = EMPTY
        self.grants: dict[str, Grant] = {}

    def run(self, seconds: float, *members: Member) -> dict[str, tuple[int, bool]]:
        """Return who gets how many at the end, and who looks for more, where that is less."""
        for _ in range(int(seconds / LOOK)):
            self.now += LOOK
            found, self.state = divide(self.now, self.state, members)
            self.grants = dict(found)
        return {k.removeprefix("team-a/"): (g.replicas, g.probe) for k, g in self.grants.items()}


def settled(*members: Member) -> Story:
    story = Story()
    story.run(SETTLE + HOLD, *members)
    return story


def test_nothing_is_limited_where_nobody_lacks_an_accelerator() -> None:
    calm = replace(DEAR, stake=replace(DEAR.stake, lacking=False))
    assert Story().run(3600, CHEAP, calm) == {}
    assert Story().run(3600, replace(DEAR, count=9)) == {}, "nor where nobody shares it"


def test_places_change_hands_when_the_pool_has_been_full_for_a_while() -> None:
    """A pool whose nodes come when they are called for has got them by then."""
    story = Story()
    assert story.run(SETTLE, CHEAP, DEAR) == {"dear": (1, True)}
    assert story.run(2 * LOOK, CHEAP, DEAR) == {"cheap": (2, False)}, "it gives one, and no pod"
    why = story.grants["team-a/cheap"].why
    assert why.endswith(
        "2 of 3 wanted replicas granted; cheap saves $1.00 per GPU-hour here, dear $5.00"
    )


def test_room_that_comes_is_waited_for_anew() -> None:
    story = Story()
    story.run(SETTLE, CHEAP, DEAR)
    more = replace(DEAR, placed=2, count=3, want=Want(3, savings=(5.0,) * 3))
    assert story.run(SETTLE, CHEAP, more) == {"dear": (2, True)}
    assert story.run(4 * LOOK, CHEAP, more) == {"cheap": (2, False)}


def test_a_service_that_may_not_spill_and_misses_its_objective_waits_for_nothing() -> None:
    stranded = member("closed", 1, 2, late=True, may_spill=False, lacking=True)
    assert Story().run(LOOK, CHEAP, stranded) == {"cheap": (2, False)}
    kept = replace(CHEAP, min_replicas=3)
    assert Story().run(LOOK, kept, stranded) == {"closed": (1, True)}, "minReplicas stays"


def test_what_a_service_that_may_not_spill_needs_is_never_taken() -> None:
    closed = member("closed", 3, 3, may_spill=False)
    assert settled(closed, replace(DEAR, stake=replace(DEAR.stake, priority=9))).grants.keys() == {
        "team-a/dear"
    }


def test_before_its_first_replica_is_ready_a_queue_claims_one() -> None:
    """Or what it then turns out not to need would have been taken from others for nothing."""
    closed = member("closed", 0, 3, may_spill=False, lacking=True)
    closed = replace(closed, want=Want(3, late=True, first=True))
    assert Story().run(LOOK, CHEAP, closed) == {"cheap": (2, False), "closed": (1, False)}
    known = replace(closed, want=replace(closed.want, first=False))
    assert Story().run(LOOK, CHEAP, known)["cheap"] == (0, False)
    down = replace(CHEAP, want=replace(CHEAP.want, first=True))
    assert Story().run(LOOK, down, DEAR) == {"dear": (1, True)}, "what it held it claims"


def test_nobody_moves_for_what_a_quota_or_a_gate_refuses() -> None:
    """It could not use the place."""
    refused = member("refused", 1, 3, 9.0, 9.0, 9.0, refused=True)
    more = member("more", 1, 2, 1.0, 0.5, lacking=True)
    story = settled(refused, CHEAP, more)
    assert story.grants.keys() == {"team-a/more"}
    assert not story.state.barred
    free = replace(refused, stake=replace(refused.stake, refused=False))
    assert story.run(LOOK, free, CHEAP, more)["cheap"][0] < 3, "until it can"


def test_a_replica_keeps_its_place_for_a_while() -> None:
    """The last one came where somebody else's had gone, so that the pool is as full as before."""
    two, other = replace(CHEAP, placed=2, count=2), member("other", 1, 1, 9.0)
    story = settled(replace(two, want=Want(2, savings=(1.0, 1.0))), DEAR, other)
    other = replace(other, placed=0, count=0, want=Want(0))
    assert story.run(HOLD, CHEAP, DEAR, other) == {"dear": (1, True)}
    assert story.run(LOOK, CHEAP, DEAR, other) == {"cheap": (2, False)}


def test_a_replica_that_is_replaced_keeps_its_place_and_a_move_takes_no_more_than_its_own() -> None:
    story = settled(CHEAP, DEAR)
    leaving = replace(CHEAP, placed=2, count=2, terminating=1)
    assert story.run(LOOK, leaving, DEAR) == {"cheap": (2, False)}
    gone = replace(leaving, terminating=0)
    assert story.run(LOOK, gone, DEAR) == {"cheap": (2, False)}, "between the two places"
    moved = replace(DEAR, placed=2, count=2, stake=replace(DEAR.stake, lacking=False))
    assert story.run(LOOK, gone, moved) == {"cheap": (2, True)}
    rolled = replace(gone, placed=1, count=2)
    assert story.run(LOOK, rolled, moved) == {"cheap": (2, True)}
    assert story.state.held[CHEAP.service][0] == 2, "its new pod comes in a moment"


def test_room_that_stays_free_brings_back_who_made_it() -> None:
    """Two accelerators came free on two nodes; a replica needs both on one."""
    large = member("large", 0, 1, 50.0, size=2, lacking=True)
    small = member("small", 2, 2, 1.0, 1.0)
    story = settled(small, large)
    assert story.grants.keys() == {"team-a/small"}
    gave = replace(small, placed=0, count=0)
    story.run(STUCK + LOOK, gave, large)
    assert story.run(LOOK, gave, large) == {"large": (0, False)}
    assert "could not be used" in story.grants["team-a/large"].why
    assert story.run(BAR / 2, small, large) == {"large": (0, True)}, "left alone for a while"


def test_room_that_was_lost_or_is_not_free_yet_bars_nobody() -> None:
    """A node that dies, and a deleted service whose replicas take long to end."""
    closed, more = member("closed", 2, 2, may_spill=False), member("more", 0, 1, 0.1, lacking=True)
    hurt = replace(closed, placed=0, want=Want(2, late=True))
    story = settled(CHEAP, closed, more)
    story.run(ROOM_MEMORY + LOOK, CHEAP, hurt, more)
    assert not story.state.barred
    assert story.grants[CHEAP.service].replicas == 1, "what is left goes to who may not spill"
    story = settled(CHEAP, closed, more, member("deleted", 2, 2, 9.0, 9.0))
    hurry = replace(closed, want=Want(4, late=True))
    story.run(ROOM_MEMORY + LOOK, CHEAP, hurry, more)
    assert not story.state.barred
    assert story.grants[CHEAP.service].replicas == 1


def test_a_pool_that_is_full_no_more_limits_nobody() -> None:
    story = settled(CHEAP, DEAR)
    more = replace(DEAR, placed=2, stake=replace(DEAR.stake, lacking=False))
    story.run(FULL_MEMORY, CHEAP, more)
    assert story.run(LOOK, CHEAP, more) == {}


def test_two_that_are_alike_never_swing() -> None:
    left = member("left", 2, 3, 2.0, 2.0, 2.0, lacking=True)
    right = member("right", 2, 3, 2.0, 2.0, 2.2, lacking=True)
    story = Story()
    for n in range(200):
        wobble = replace(right, want=Want(3, savings=(2.0 + n % 3 / 10,) * 3))
        assert {g[0] for g in story.run(LOOK, left, wobble).values()} == {2}
