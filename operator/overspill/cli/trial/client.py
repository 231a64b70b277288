"""A client of the gateway, as any other program is one."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from overspill.api.names import DESTINATION_LOCAL
from overspill.api.sse import EventTooLarge
from overspill.cli.reply import Reply, error_message
from overspill.cli.sse import Parser
from overspill.cli.trial import objects

ANSWER_SECONDS = 900.0  # longer than the gateway holds a request


@dataclass
class Answer:
    """A reply and its times in seconds since it was asked for; ``first``: to the first token."""

    reply: Reply
    first: float
    whole: float

    @property
    def here(self) -> bool:
        """Whether this machine's engine gave it."""
        return self.reply.destination == DESTINATION_LOCAL


class Client:
    """Asks the service's questions.

    :param url: of the gateway.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url = session, f"{url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"}

    async def ask(
        self, question: str, tokens: int, show: Callable[[str], None] = lambda text: None
    ) -> Answer:
        """Ask one question, and read the answer as it comes; a fault is in its reply.

        :param tokens: of the answer at most.
        """
        body = {
            "model": objects.SERVICE,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "stream": True,
        }
        began, answer = time.monotonic(), Answer(Reply(), 0.0, 0.0)
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._session.post(self._url, json=body, headers=self._headers) as response,
            ):
                answer.reply = Reply.begun(response.headers)
                if response.status != 200:
                    answer.reply.error = error_message(await response.text())
                else:
                    await _read(response, answer, began, show)
        except (aiohttp.ClientError, TimeoutError, EventTooLarge) as error:
            answer.reply.error = str(error) or type(error).__name__
        answer.whole = time.monotonic() - began
        return answer

    async def burst(self, questions: Iterable[str], tokens: int) -> list[Answer]:
        """Ask many at once."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self.ask(question, tokens)) for question in questions]
        return [task.result() for task in asked]


async def _read(
    response: aiohttp.ClientResponse, answer: Answer, began: float, show: Callable[[str], None]
) -> None:
    parser = Parser()
    async for chunk in response.content.iter_any():
        for delta in parser.feed(chunk):
            if delta.text and not answer.first:
                answer.first = time.monotonic() - began
            answer.reply.take(delta)
            show(delta.text)
    if not parser.done and not answer.reply.error:
        answer.reply.error = "the stream broke off"
