"""Server-sent events of an OpenAI stream: cut into events, told apart, never re-serialised.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
A line ends with LF, CR or CRLF, an event with an empty line; a piece from the socket may
end anywhere. Memory is capped: an event larger than the limit ends the stream.
"""

import re
from typing import Any

import orjson

MAX_EVENT = 4 * 1024 * 1024  # bytes of one event; a tool call or logprobs may be large
DONE = b"data: [DONE]\n\n"
# Two line ends in a row. Atomic, or CRLF could be read as two of them.
_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_NAME_LINE = re.compile(rb"(?:\A|[\r\n])event(?::[ ]?([^\r\n]*))?(?=[\r\n]|\Z)")
_DATA_LINE = re.compile(rb"(?:\A|[\r\n])data(?::[ ]?([^\r\n]*))?(?=[\r\n]|\Z)")


class EventTooLarge(ValueError):
    """No server of ours sends such an event; reading on would only fill the memory."""


class EventSplitter:
    """Turns pieces of bytes into whole events, each with its closing empty line."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False  # the last event ended with CR: a LF that follows belongs to it
        self._scanned = 0  # bytes of the rest that hold no end of an event

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now.

        :raises EventTooLarge: when one event exceeds the limit.
        """
        plain = data.endswith(b"\n\n") and data[:1] != b"\n" and b"\r" not in data
        if plain and not self._rest and not self._after_cr:
            if data.count(b"\n\n") == 1:
                return [data]
            return [event + b"\n\n" for event in data.split(b"\n\n") if event.strip(b"\n")]
        return self._feed_slowly(data)

    def _feed_slowly(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._rest += data  # in place: a large event may come byte by byte
        events, start = [], 0
        for end in [match.end() for match in _BLANK_LINE.finditer(self._rest, self._scanned)]:
            event = bytes(self._rest[start:end])
            start = end
            if event.strip(b"\r\n"):
                events.append(event)
        self._after_cr = 0 < start == len(self._rest) and self._rest.endswith(b"\r")
        del self._rest[:start]
        self._scanned = max(0, len(self._rest) - 3)
        if len(self._rest) > MAX_EVENT:
            raise EventTooLarge(f"an event of the stream exceeds {MAX_EVENT} bytes")
        return events


def data_of(event: bytes) -> bytes:
    """Return the data of an event: its data lines, joined; empty for a comment."""
    one_line = event.find(b"\n") == len(event) - 2 and b"\r" not in event
    if one_line and event.startswith(b"data: "):
        return event[6:-2]
    lines = [m.group(1) or b"" for m in _DATA_LINE.finditer(event)]
    return b"\n".join(lines)


def name_of(event: bytes) -> bytes:
    """Return the name of an event, the last that it says; empty when it has none."""
    found = _NAME_LINE.findall(event)
    return found[-1] if found else b""


def parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object of an event's data; empty when it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def has_content(chunk: dict[str, Any]) -> bool:
    """Whether a chunk carries something the model said, or says why it said nothing."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        if choice.get("text") or choice.get("finish_reason"):
            return True
        delta = choice.get("delta")
        if isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role"):
            return True
    return False


def json_event(data: dict[str, Any]) -> bytes:
    """Return an event whose data is a JSON object."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(body: bytes, name: str = "") -> bytes:
    """Return the event that ends a stream with an error object.

    :param name: of the event, "" for none.
    """
    named = b"event: " + name.encode() + b"\n" if name else b""
    return named + b"data: " + body + b"\n\n"


def comment(text: str) -> bytes:
    """Return an SSE comment, which clients skip."""
    return b": " + text.encode("ascii", "replace") + b"\n\n"
