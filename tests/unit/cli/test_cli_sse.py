import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.sse import MAX_EVENT
from overspill.cli.sse import Parser

TEXTS = st.lists(st.text(min_size=1, max_size=8), max_size=6)


def stream(texts: list[str], end: str) -> bytes:
    """A stream of those pieces, with comments between, and either kind of line end."""
    events = [json.dumps({"choices": [{"delta": {"content": t}}]}) for t in texts]
    lines = [f": heartbeat{end}{end}data: {event}{end}{end}" for event in events]
    return "".join([*lines, f"data: [DONE]{end}{end}"]).encode()


@given(TEXTS, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 400), max_size=8))
def test_a_stream_cut_anywhere_reads_the_same(texts: list[str], end: str, cuts: list[int]) -> None:
    whole = stream(texts, end)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parser = Parser()
    read = [
        delta.text
        for start, stop in itertools.pairwise(edges)
        for delta in parser.feed(whole[start:stop])
    ]
    assert "".join(read) == "".join(texts)
    assert parser.done


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'data: {"error": {"message": "engine gone"}}\n\n', "engine gone"),
        (b'data: {"error": "engine gone"}\n\n', "engine gone"),
        (b"data: {broken\n\n", "not JSON"),
    ],
)
def test_an_error_in_the_stream_is_read(data: bytes, error: str) -> None:
    parser = Parser()
    (delta,) = parser.feed(data)
    assert error in delta.error
    assert not parser.done


def test_an_endless_event_is_refused() -> None:
    parser = Parser()
    with pytest.raises(ValueError, match="exceeds"):
        list(parser.feed(b"x" * (MAX_EVENT + 1)))
