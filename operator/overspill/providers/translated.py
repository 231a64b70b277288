"""An answer in another API's form, whole or event by event."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

import orjson

from overspill.api import sse
from overspill.providers.base import MAX_ANSWER, Answer, AnswerBroken, Fault, Fields

Result = TypeVar("Result")


class Translator(Protocol):
    """Turns one answer into another API's form.

    What is no answer of its API may raise LookupError, TypeError, AttributeError or ValueError.
    """

    def whole(self, answer: Fields) -> Fields:
        """Return a unary answer."""

    def event(self, data: bytes) -> bytes:
        """Return what the data of one event becomes: events, or b"" for none."""


class Translated:
    """An answer that is translated while it is read."""

    def __init__(self, answer: Answer, translator: Translator) -> None:
        self._answer, self._translator = answer, translator
        self._splitter = sse.EventSplitter()
        self._read = False

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""
        return self._answer.streams

    async def read(self, seconds: float) -> bytes:
        """Return the next piece, ``b""`` at the end.

        :param seconds: until a piece that says something; of a unary answer between two pieces.
        :raises AnswerBroken: when it ends before its end, or is none of its API.
        """
        if not self.streams:
            return await self._whole(seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while data := await self._answer.read(max(0.001, deadline - loop.time())):
            try:
                events = self._splitter.feed(data)
            except sse.EventTooLarge as error:
                raise AnswerBroken(str(error)) from None
            out = b"".join(sound(self._translator.event, sse.data_of(event)) for event in events)
            if out:
                return out
        return b""

    async def _whole(self, seconds: float) -> bytes:
        if self._read:
            return b""
        answer = sse.parse(await whole(self._answer, seconds))
        self._read = True
        return sound(self._translate_whole, answer)

    def _translate_whole(self, answer: Fields) -> bytes:
        return orjson.dumps(self._translator.whole(answer))

    def close(self) -> None:
        """End it; an unfinished one is cancelled at the provider."""
        self._answer.close()


async def whole(answer: Answer, seconds: float) -> bytes:
    """Return all of a unary answer.

    :param seconds: between two pieces.
    :raises AnswerBroken: when it ends before its end, or exceeds the limit.
    """
    pieces: list[bytes] = []
    size = 0
    while data := await answer.read(seconds):
        pieces.append(data)
        size += len(data)
        if size > MAX_ANSWER:
            raise AnswerBroken(f"the answer exceeds {MAX_ANSWER} bytes")
    return b"".join(pieces)


Given = TypeVar("Given")


def sound(translate: Callable[[Given], Result], given: Given) -> Result:
    """Translate, or say that it was no answer.

    :raises AnswerBroken: instead of what a translator may raise.
    """
    try:
        return translate(given)
    except (LookupError, TypeError, AttributeError, ValueError):
        message = "the answer is none of this provider's API"
        raise AnswerBroken(message, Fault.UNEXPECTED_ANSWER) from None
