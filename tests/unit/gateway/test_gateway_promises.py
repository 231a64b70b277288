"""Whom a full queue told when to come back: bounded, and no burden on those who find a slot."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from queue_world import key

from overspill.api.keys import ClientKey
from overspill.gateway.admission import MOST_PROMISES, Admission
from overspill.gateway.promises import KEPT_SECONDS, Promises

KEYS = [key("a"), key("a", weight=2), key("b")]  # the first changed its weight


def test_a_request_forgets_those_who_did_not_come() -> None:
    promises = Promises(10)
    for due in (1.0, 2.0, 3.0):
        promises.make(KEYS[0], due)
    assert not promises.redeem(KEYS[2], 2.5 + KEPT_SECONDS)
    assert len(promises) == 1
    assert promises.by_key == {KEYS[0]: 1}


def test_there_is_a_bound_however_long_the_queue_may_be() -> None:
    queue = Admission(limit=100_000)
    for _ in range(MOST_PROMISES + 1):
        queue.promises.make(KEYS[0], 1.0)
    assert len(queue.promises) == MOST_PROMISES


steps = st.tuples(
    st.sampled_from(["make", "redeem", "kept"]), st.sampled_from(KEYS), st.integers(0, 12)
)


@given(st.lists(steps, max_size=40))
def test_the_promises_to_each_key_are_counted(taken: list[tuple[str, ClientKey, int]]) -> None:
    promises = Promises(5)
    for what, whose, time in taken:
        if what == "make":
            promises.make(whose, float(time))
        elif what == "redeem":
            promises.redeem(whose, float(time))
        else:
            promises.kept(float(time))
        assert promises.by_key == Counter(whose for _, whose in promises._line)
        assert 0 not in promises.by_key.values(), "or keys that have gone would be counted as here"
