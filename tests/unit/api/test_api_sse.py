"""Events cut at any byte, against a reference that reads the whole stream at once."""

import contextlib
import random
import re
import sys

import pytest

from lab.lengths import length
from overspill.api import sse

PIECES = [b"data: ", b"data:", b"data", b"datax: y", b"event: ", b"event", b"id: 1", b": c", b" "]
PIECES += [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\x00", b"[DONE]", b'{"a":1}']
PIECES += ["\u00e9\u20ac\U0001d11e".encode(), b"\xff", b"data: x\n\n", b"data: y\r\r"]


def reference(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Return name and data of each event, as the standard reads a stream line by line."""
    events, name, data = [], b"", list[bytes]()
    for line in re.split(rb"\r\n|\r|\n", stream)[:-1]:
        field, _, value = line.partition(b":")
        if not line:
            events.append((name, b"\n".join(data)))
            name, data = b"", []
        elif field == b"event":
            name = value.removeprefix(b" ")
        elif field == b"data":
            data.append(value.removeprefix(b" "))
    return [(name, data) for name, data in events if data]


def test_however_a_stream_is_cut_it_is_what_the_standard_says() -> None:
    """RELIABILITY row 13."""
    dice = random.Random(13)
    for _ in range(length(1_000, 100_000)):
        stream = b"".join(dice.choices(PIECES, k=dice.randrange(25)))
        most = dice.choice([1, 2, 5, len(stream) + 1])
        splitter, events, start = sse.EventSplitter(), list[bytes](), 0
        while start < len(stream):
            end = start + dice.randint(1, most)
            events += splitter.feed(stream[start:end])
            start = end
        found = [(sse.name_of(e), sse.data_of(e)) for e in events if sse.data_of(e)]
        assert found == reference(stream), (stream, most)


@pytest.mark.parametrize("size", [1, 65_536])
def test_a_large_event_takes_no_more_memory_than_one_may_and_no_square_of_time(size: int) -> None:
    data = b"data: " + b"x" * (length(50_000, 10_000_000) if size == 1 else 10_000_000)
    splitter = sse.EventSplitter()
    with contextlib.suppress(sse.EventTooLarge):
        for start in range(0, len(data), size):
            splitter.feed(data[start : start + size])
    assert sys.getsizeof(splitter._rest) <= 1.25 * (sse.MAX_EVENT + size)


def test_bytes_are_kept_as_they_came() -> None:
    splitter = sse.EventSplitter()
    events = splitter.feed(b"data: a\n\ndata: b\n\n: c\n\n")
    assert b"".join(events) == b"data: a\n\ndata: b\n\n: c\n\n"
    assert splitter.feed(b"data: d\r\n\r\n") == [b"data: d\r\n\r\n"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_empty_lines_alone_are_no_event(size: int) -> None:
    splitter, data = sse.EventSplitter(), b"\n\ndata: a\n\n\n\ndata: b\n\n"
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    events = [event for piece in pieces for event in splitter.feed(piece)]
    assert [sse.data_of(event) for event in events] == [b"a", b"b"]


def test_an_endless_event_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    splitter = sse.EventSplitter()
    for _ in range(10):
        splitter.feed(b"x" * 10)
    with pytest.raises(sse.EventTooLarge, match="exceeds 100 bytes"):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("chunk", "content"),
    [
        ({"choices": [{"delta": {"role": "assistant", "content": None}}]}, False),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {"content": "a"}}]}, True),
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{"id": "1"}]}}]}, True),
        ({"choices": [{"text": "a"}]}, True),
        ({"choices": [{"text": ""}]}, False),
        ({"choices": [{"delta": {}, "finish_reason": "length"}]}, True),
        ({"choices": []}, False),
        ({"choices": None}, False),
        ({"choices": ["x"]}, False),
        ({"choices": 1}, False),
        ({}, False),
    ],
)
def test_what_counts_as_content(chunk: dict, content: bool) -> None:  # type: ignore[type-arg]
    assert sse.has_content(chunk) is content
