"""Server-sent events of a chat completion, as far as a command line needs them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

MAX_LINE = 1_048_576  # bytes; no gateway sends a longer event


@dataclass(frozen=True)
class Delta:
    """What one event adds."""

    text: str = ""
    error: str = ""
    notes: dict[str, str] = field(default_factory=dict)  # x-overspill-* of comments


class InvalidStream(ValueError):
    """What came is no stream of ours; asking again will not help."""


class Parser:
    """Feed it bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        """Start at the begin of a stream."""
        self._rest = b""
        self.done = False  # the stream came to its regular end

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """Yield what the chunk completes.

        :raises InvalidStream: for a line that no gateway would send.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise InvalidStream(f"an event of more than {MAX_LINE} bytes")
        for line in lines:
            delta = self._line(line.rstrip(b"\r"))
            if delta:
                yield delta

    def _line(self, line: bytes) -> Delta | None:
        if line.startswith(b": x-overspill-"):
            name, _, value = line[2:].decode(errors="replace").partition("=")
            return Delta(notes={name: value})
        if not line.startswith(b"data:"):
            return None
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return None
        return _event(data)


def _event(data: bytes) -> Delta:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return Delta(error="an event that is not JSON")
    if "error" in event:
        error = event["error"]
        return Delta(error=str(error.get("message", error) if isinstance(error, dict) else error))
    choices = event.get("choices") or [{}]
    return Delta(text=(choices[0].get("delta") or {}).get("content") or "")
