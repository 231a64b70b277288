"""What the gateway looks at in an answer, in the form of the client's API: content, usage, end.

OpenAI ends a stream with ``[DONE]`` and tells usage in a chunk of its own, which is taken out when
the client did not ask for it. Anthropic ends it with ``message_stop`` and tells usage before.
"""

import re
from typing import Any, Protocol

from overspill.api import sse
from overspill.ledger.prices import Usage, parse_usage
from overspill.providers.base import Api, Fields
from overspill.providers.messages_as_chat import usage_of

# Many servers write a space after the colon; OpenAI's says null in all chunks but the last.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_OBJECT = b"data: {"
_MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Wire(Protocol):
    """One answer, seen event by event."""

    done: bool  # the end came
    fault: str  # an error that the upstream reported inside its stream
    usage: Usage | None
    end: bytes  # what ends a stream

    def see(self, event: bytes, first: bool) -> tuple[bool, bool]:
        """Return whether the client gets an event, and whether it has content.

        :param first: no content was seen yet.
        """

    def usage_of(self, answer: Fields) -> Usage | None:
        """Return the usage that a unary answer tells."""


class OpenAIWire:
    """OpenAI's form.

    Only what can matter is parsed: all until the first content, then usage and errors.
    A quote inside a text is escaped, so it cannot look like a field.
    """

    end = sse.DONE

    def __init__(self, wants_usage: bool, answers: bool) -> None:
        self.done, self.fault = False, ""
        self.usage: Usage | None = None
        self._wants_usage, self._answers = wants_usage, answers

    def see(self, event: bytes, first: bool) -> tuple[bool, bool]:
        """Return whether the client gets an event, and whether it has content."""
        if not first and event.startswith(_OBJECT) and not _is_special(event):
            return True, True  # so are nearly all
        data = sse.data_of(event)
        if data == b"[DONE]":
            self.done = True
            return False, False
        if not first and b'"error"' not in data and not _has_usage(data):
            return True, bool(data)
        chunk = sse.parse(data)
        if chunk.get("error") and not chunk.get("choices"):
            self.fault = "the upstream reported an error in its stream"
            return False, False
        if isinstance(chunk.get("usage"), dict):
            self.usage = parse_usage(chunk["usage"], self._answers)
            if not chunk.get("choices"):
                return self._wants_usage, False
        return True, sse.has_content(chunk)

    def usage_of(self, answer: Fields) -> Usage | None:
        """Return the usage that a unary answer tells."""
        return parse_usage(answer.get("usage"), self._answers)


class AnthropicWire:
    """Anthropic's form."""

    end = _MESSAGE_STOP

    def __init__(self) -> None:
        self.done, self.fault = False, ""
        self.usage: Usage | None = None
        self._told: Fields = {}

    def see(self, event: bytes, first: bool) -> tuple[bool, bool]:
        """Return whether the client gets an event, and whether it has content."""
        told = sse.parse(sse.data_of(event))
        match told.get("type"):
            case "content_block_delta":
                return True, True
            case "content_block_start":
                block = told.get("content_block")
                return True, isinstance(block, dict) and block.get("type") == "tool_use"
            case "message_start":
                message = told.get("message")
                self._tell(message.get("usage") if isinstance(message, dict) else None)
            case "message_delta":
                self._tell(told.get("usage"))
                self.usage = _parse(self._told)  # not before: of a broken answer it is estimated
                return True, True
            case "message_stop":
                self.done = True
                return False, False
            case "error":
                self.fault = "the upstream reported an error in its stream"
                return False, False
        return True, False

    def usage_of(self, answer: Fields) -> Usage | None:
        """Return the usage that a unary answer tells."""
        return _parse(answer.get("usage"))

    def _tell(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._told |= {k: v for k, v in usage.items() if v is not None}


def wire_of(api: Api, wants_usage: bool, answers: bool = True) -> Wire:
    """Return how to look at an answer in an API's form.

    :param wants_usage: the client asked for the usage chunk of a stream.
    :param answers: tokens are made, not only read: all but embeddings.
    """
    return OpenAIWire(wants_usage, answers) if api is Api.OPENAI else AnthropicWire()


def _is_special(event: bytes) -> bool:
    """Whether an event may be more than content: a quote inside a text is escaped."""
    return b'"error"' in event or b'"usage"' in event


def _has_usage(data: bytes) -> bool:
    """Whether an event holds a usage object; the first look costs next to nothing."""
    return b'"usage"' in data and _USAGE.search(data) is not None


def _parse(usage: Any) -> Usage | None:
    """Read Anthropic's usage; None when it is not a sound one."""
    try:
        return parse_usage(usage_of(usage))
    except (KeyError, TypeError, AttributeError):
        return None
