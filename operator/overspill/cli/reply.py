"""One answer of a gateway, as far as a command line shows it, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from overspill.api import names
from overspill.cli.sse import Delta

_FIELDS = {
    names.HEADER_DESTINATION: "destination",
    names.HEADER_REASON: "reason",
    names.HEADER_REQUEST_ID: "request_id",
    names.HEADER_COST: "cost_usd",
}


@dataclass
class Reply:
    """One answer, and where it came from."""

    answer: str = ""
    destination: str = ""
    reason: str = ""
    request_id: str = ""
    cost_usd: str = ""
    error: str = field(default="", repr=False)

    @classmethod
    def begun(cls, headers: Mapping[str, str]) -> "Reply":
        """Return what an answer's headers say.

        :param headers: with names in lower case, or in any where the mapping does not mind.
        """
        return cls(**{name: headers.get(header, "") for header, name in _FIELDS.items()})

    def take(self, delta: Delta) -> None:
        """Add what an event of its stream says."""
        self.answer += delta.text
        self.error = self.error or delta.error
        for header in delta.notes.keys() & _FIELDS.keys():
            setattr(self, _FIELDS[header], delta.notes[header])

    def note(self) -> str:
        """Return where the answer came from, for people."""
        reason = f" ({self.reason})" if self.reason else ""
        cost = f", ${self.cost_usd}" if self.cost_usd else ""
        return f"[{self.destination or 'unknown'}{reason}{cost}]"


def error_message(body: str) -> str:
    """Return the text of an error in OpenAI's shape or the API server's, else the body's start."""
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.strip()[:300]
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
