"""Events cut at any byte, against a reference that reads the whole stream at once."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.api import sse

ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.one_of(
    st.text(max_size=8).map(lambda t: b"data: " + re.sub("[\r\n]", "", t).encode()),
    st.sampled_from([b": comment", b"event: x", b"data", b"data:x", b"datax: y", b"id: 1"]),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[bytes]], bytes]:
    """Return events as lists of lines, and their bytes with line ends of every kind."""
    events = draw(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5))
    data = b""
    for lines in events:
        for line in lines:
            data += line + draw(ENDS)
        end = draw(ENDS)
        # A LF after a CR would be one line end, not two.
        data += b"\n\n" if data.endswith(b"\r") and end.startswith(b"\n") else end
    return events, data


def reference(lines: list[bytes]) -> bytes:
    """Join the data lines of one event, as the standard says."""
    values = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values)


@given(streams(), st.data())
def test_events_are_the_same_however_the_bytes_are_cut(
    stream: tuple[list[list[bytes]], bytes], data: st.DataObject
) -> None:
    lines, whole = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    splitter, events = sse.EventSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        events += splitter.feed(whole[start:end])
    assert [sse.data_of(e) for e in events] == [reference(part) for part in lines]


@given(streams())
def test_one_byte_at_a_time(stream: tuple[list[list[bytes]], bytes]) -> None:
    lines, whole = stream
    splitter, events = sse.EventSplitter(), []
    for i in range(len(whole)):
        events += splitter.feed(whole[i : i + 1])
    assert [sse.data_of(e) for e in events] == [reference(part) for part in lines]


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
