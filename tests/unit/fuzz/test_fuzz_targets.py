"""What others send, in a short form: mutations of sound examples, and any bytes at all."""

import os
from collections.abc import Callable

import pytest
from fuzz_mutations import rewritten
from fuzz_targets import SEEDS, requests
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("OVERSPILL_EXAMPLES", "40"))
# Places of a text as parts of it, and what is put there instead of some bytes.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)), max_size=4)
TOKENS = [b"null", b"-1", b"1e999", b"{}", b"[]", b'""', b"true", b'"\\ud800"', b"\x00", b"\r"]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for place, gone, new in draw(EDITS):
        at = int(place * len(data))
        data = data[:at] + (new or draw(st.sampled_from(TOKENS))) + data[at + gone :]
    return data


def rewrites(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(rewritten, st.sampled_from(seeds), st.randoms(use_true_random=False))


@pytest.mark.parametrize("target", SEEDS, ids=lambda target: target.__name__)
def test_nothing_that_others_send_is_a_fault_of_ours(target: Callable[[bytes], None]) -> None:
    @settings(max_examples=EXAMPLES)
    @given(mutated(SEEDS[target]) | rewrites(SEEDS[target]) | st.binary())
    def holds(data: bytes) -> None:
        target(data)

    holds()


@pytest.mark.parametrize("target", SEEDS, ids=lambda target: target.__name__)
def test_the_seeds_are_sound(target: Callable[[bytes], None]) -> None:
    for seed in SEEDS[target]:
        target(seed)


def test_a_target_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz_targets.blocks_of", lambda call, tenant: call.fields["absent"])
    with pytest.raises(KeyError):
        requests(SEEDS[requests][0])
