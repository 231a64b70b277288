"""What the events of a chat completion's stream say, as far as a command line needs it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from overspill.api.sse import EventSplitter, data_of


@dataclass(frozen=True)
class Delta:
    """What one event adds."""

    text: str = ""
    error: str = ""
    notes: dict[str, str] = field(default_factory=dict)  # x-overspill-* of comments


class Parser:
    """Feed it bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        """Start at the begin of a stream."""
        self._splitter = EventSplitter()
        self.done = False  # the stream came to its regular end

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """Yield what the chunk completes.

        :raises EventTooLarge: for an event that no gateway would send.
        """
        for event in self._splitter.feed(chunk):
            if event.startswith(b": x-overspill-"):
                name, _, value = event[2:].decode(errors="replace").strip().partition("=")
                yield Delta(notes={name: value})
            elif (data := data_of(event)) == b"[DONE]":
                self.done = True
            elif data:
                yield _event(data)


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
