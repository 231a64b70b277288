"""Replicate: a prediction is made, followed until it has ended, and cancelled when nobody waits.

Its words come by an event stream of their own URL, or, where there is none or it breaks off, from
the prediction itself, which is asked again and again. How much it has cost stands there, too, once
it has ended. A deadline is sent along, so that it also ends when this gateway does.

https://replicate.com/docs/reference/http#models.predictions.create
https://replicate.com/docs/topics/predictions/streaming
https://replicate.com/docs/topics/predictions/lifecycle
"""

import asyncio
import math
import re
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import orjson
import structlog

from overspill.api import sse
from overspill.api.bodies import json_body
from overspill.api.identifiers import URL_PATTERN
from overspill.api.provider import destination
from overspill.providers import openai
from overspill.providers.base import (
    MAX_ANSWER,
    Account,
    Answer,
    AnswerBroken,
    Fault,
    Fields,
    ProviderError,
    ProviderUnusable,
    Request,
)
from overspill.providers.chat_to_prediction import input_of, limit_of
from overspill.providers.http import Http
from overspill.providers.prediction_as_chat import PredictionAsChat, text_of
from overspill.providers.translated import sound, whole

Result = TypeVar("Result")
log = structlog.get_logger(__name__)

# Seconds. A short answer comes with the first request; after that its id is known, and the
# prediction can be cancelled.
WAIT = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # between two looks at a prediction
MAX_FAULTS = 3  # looks in a row that fail
ASK, CANCEL = 10.0, 5.0  # for one look, and for a cancellation
STREAM = 600.0  # that a streamed prediction may run after its first content
SHORTEST_DEADLINE = 5  # that the API takes
ID = re.compile(r"[A-Za-z0-9]{1,64}")


def body_for(request: Request, account: Account) -> Fields:
    """Return the body that makes a prediction.

    :raises Unsupported: for what the model cannot be told.
    """
    return {"input": input_of(openai.conversation_of(request), account.inputs)}


class Predictions:
    """Predictions at Replicate.

    :param http: the connections.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        self._tasks: set[asyncio.Task[Any]] = set()  # whose end nobody else may wait for

    async def send(self, account: Account, request: Request, model: str, patience: float) -> Answer:
        """Make a prediction; return an answer in OpenAI's form once it is made.

        :raises Unsupported: for what the model cannot be told.
        :raises RequestRefused: for a fault of the request.
        :raises ProviderUnusable: for everything else that is no prediction.
        """
        stream = bool(request.fields.get("stream"))
        body = body_for(request, account) | ({"stream": True} if stream else {})
        making = self._spawn(self._make(account, model, body, patience))
        try:
            prediction = await asyncio.shield(making)
        except asyncio.CancelledError:  # what is made now nobody waits for
            making.add_done_callback(partial(self._cancel_made, account))
            raise
        form = PredictionAsChat(model, limit_of(request.fields))
        run = Run(self, account, prediction)
        return StreamedPrediction(run, form) if stream else WholePrediction(run, form)

    async def _make(self, account: Account, model: str, body: Fields, patience: float) -> Fields:
        stream = "stream" in body
        deadline = max(SHORTEST_DEADLINE, math.ceil(patience + (STREAM if stream else 0)))
        headers = _key(account) | {"Cancel-After": f"{deadline}s"}
        if not stream:
            headers["Prefer"] = f"wait={max(1, min(WAIT, int(patience)))}"
        path = f"/models/{quote(model, safe='/')}/predictions"
        made = min(patience, account.first_byte + WAIT)
        answer = await self._http.post(account, path, json_body(body), headers, made)
        try:
            return await _prediction(answer, account.idle)
        except AnswerBroken as error:
            raise ProviderUnusable(error.fault, str(error), may_bill=True) from None

    async def look(self, account: Account, id_: str, seconds: float) -> Fields:
        """Return a prediction as it is now.

        :raises ProviderError: when that does not succeed.
        """
        url = f"{account.url}/predictions/{id_}"
        answer = await self._http.get(account, url, _key(account), seconds)
        return await _prediction(answer, seconds)

    async def events(self, account: Account, url: str, seconds: float) -> Answer:
        """Return the event stream of a prediction.

        :param url: one that the key may be sent to.
        :raises ProviderError: when there is none.
        """
        headers = _key(account) | {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        answer = await self._http.get(account, url, headers, seconds)
        if answer.streams:
            return answer
        answer.close()
        raise AnswerBroken("no stream of events")

    def cancel(self, account: Account, id_: str) -> None:
        """Cancel a prediction; returns at once."""
        self._spawn(self._cancel(account, id_))

    async def _cancel(self, account: Account, id_: str) -> None:
        try:
            path = f"/predictions/{id_}/cancel"
            answer = await self._http.post(account, path, b"", _key(account), CANCEL)
            answer.close()
        except ProviderError as error:  # its deadline ends it
            log.warning("prediction not cancelled", provider=account.provider, error=str(error))

    def _cancel_made(self, account: Account, making: asyncio.Task[Fields]) -> None:
        """Cancel what was made after its client had left."""
        if not making.cancelled() and making.exception() is None:
            prediction = making.result()
            if _runs(prediction):
                self.cancel(account, prediction["id"])

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait for cancellations that are under way, a few seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL):
                while self._tasks:
                    await asyncio.wait(self._tasks)


class Run:
    """One prediction that somebody waits for."""

    def __init__(self, predictions: Predictions, account: Account, prediction: Fields) -> None:
        self._predictions, self._account = predictions, account
        self.prediction = prediction
        self._pause, self._faults = FIRST_PAUSE, 0

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return _runs(self.prediction)

    async def look(self, deadline: float) -> None:
        """Look at it again, after a pause.

        :param deadline: of the event loop's clock.
        :raises AnswerBroken: when it is reached, or looking fails too often.
        """
        left = deadline - asyncio.get_running_loop().time()
        if left <= self._pause:
            raise AnswerBroken("the provider was silent for too long", Fault.TIMED_OUT)
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        id_ = self.prediction["id"]
        try:
            self.prediction = await self._predictions.look(self._account, id_, min(ASK, left))
            self._faults = 0
        except ProviderError as error:
            self._faults += 1
            if self._faults >= MAX_FAULTS:
                raise AnswerBroken(f"the prediction was lost ({error})") from None

    def demand_success(self) -> None:
        """See that it ended as it should.

        :raises AnswerBroken: when it failed, or somebody cancelled it.
        """
        status = self.prediction["status"]
        if status != "succeeded":
            # A model fails so on a prompt that is too long or offends it, too.
            fault = Fault.NOT_FINISHED if status == "failed" else Fault.SERVER_ERROR
            raise AnswerBroken("the provider could not finish the prediction", fault)

    async def events(self, deadline: float) -> Answer | None:
        """Return its event stream, None where it has none that the key may be sent to."""
        urls = self.prediction.get("urls")
        url = urls.get("stream") if isinstance(urls, dict) else None
        if not isinstance(url, str) or not _may_send(self._account, url):
            return None
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            return await self._predictions.events(self._account, url, min(ASK, left))
        except ProviderError:
            return None

    def close(self) -> None:
        """Cancel it, unless it has ended."""
        if self.runs:
            self._predictions.cancel(self._account, self.prediction["id"])


class WholePrediction:
    """A unary answer."""

    streams = False

    def __init__(self, run: Run, form: PredictionAsChat) -> None:
        self._run, self._form = run, form
        self._read = False

    async def read(self, seconds: float) -> bytes:
        """Return the answer, then ``b""``.

        :param seconds: until the prediction has ended.
        :raises AnswerBroken: when it has not, or not well.
        """
        if self._read:
            return b""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._run.runs:
            await self._run.look(deadline)
        self._run.demand_success()
        self._read = True
        return orjson.dumps(sound(self._form.whole, self._run.prediction))

    def close(self) -> None:
        """End it."""
        self._run.close()


class StreamedPrediction:
    """An answer piece by piece."""

    streams = True

    def __init__(self, run: Run, form: PredictionAsChat) -> None:
        self._run, self._form = run, form
        self._events: Answer | None = None
        self._splitter = sse.EventSplitter()
        self._said = ""
        self._begun = self._over = False

    async def read(self, seconds: float) -> bytes:
        """Return the next piece, ``b""`` at the end.

        :param seconds: until a piece that says something.
        :raises AnswerBroken: when it ends before its end.
        """
        if self._over:
            return b""
        deadline = asyncio.get_running_loop().time() + seconds
        if not self._begun:
            self._begun = True
            self._events = await self._run.events(deadline)
        while True:
            if self._events is not None:
                out = await self._next_event(self._events, deadline)
            else:
                out = await self._next_look(deadline)
            if out:
                return out

    async def _next_event(self, events: Answer, deadline: float) -> bytes:
        """Return what the next piece of the event stream says; at its end the rest is looked up."""
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            data = await events.read(left)
            found = self._splitter.feed(data)
        except sse.EventTooLarge as error:
            raise AnswerBroken(str(error)) from None
        except AnswerBroken as error:
            if error.fault is Fault.TIMED_OUT:
                raise
            data, found = b"", []
        texts = [sse.data_of(e).decode(errors="replace") for e in found if _is_output(e)]
        if not data or any(sse.name_of(e) in (b"done", b"error") for e in found):
            self._end_events(events)
        return self._say("".join(texts))

    def _end_events(self, events: Answer) -> None:
        events.close()
        self._events = None

    async def _next_look(self, deadline: float) -> bytes:
        """Return what is new in the prediction, and its end."""
        await self._run.look(deadline)
        prediction = self._run.prediction
        text = sound(text_of, prediction)
        out = self._say(text[len(self._said) :] if text.startswith(self._said) else "")
        if self._run.runs:
            return out
        self._run.demand_success()
        self._over = True
        return out + self._form.end(prediction)

    def _say(self, text: str) -> bytes:
        if not text:
            return b""
        self._said += text
        if len(self._said) > MAX_ANSWER:
            raise AnswerBroken(f"the answer exceeds {MAX_ANSWER} characters")
        return self._form.said(self._run.prediction, text)

    def close(self) -> None:
        """End it; an unfinished one is cancelled at the provider."""
        if self._events is not None:
            self._end_events(self._events)
        self._run.close()


def _key(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.secret}"}


def _runs(prediction: Fields) -> bool:
    return prediction["status"] in ("starting", "processing")


def _is_output(event: bytes) -> bool:
    return sse.name_of(event) == b"output"


def _may_send(account: Account, url: str) -> bool:
    """Whether the key may be sent to a URL: its host is listed, and it is no less safe."""
    if not re.fullmatch(URL_PATTERN, url):
        return False
    scheme = urlsplit(url).scheme
    safe = scheme == "https" or scheme == urlsplit(account.url).scheme
    return safe and destination(url) in account.destinations


async def _prediction(answer: Answer, seconds: float) -> Fields:
    """Read a prediction.

    :param seconds: for all of it.
    :raises AnswerBroken: when it is none.
    """
    try:
        async with asyncio.timeout(seconds):
            found = sse.parse(await whole(answer, seconds))
    except TimeoutError:
        raise AnswerBroken("the provider was too slow", Fault.TIMED_OUT) from None
    finally:
        answer.close()
    id_, status = found.get("id"), found.get("status")
    if not isinstance(id_, str) or not ID.fullmatch(id_) or not isinstance(status, str):
        raise AnswerBroken("the answer is no prediction", Fault.UNEXPECTED_ANSWER)
    return found
