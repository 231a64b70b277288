"""Plays Replicate's predictions API for official language models, from its published description.

https://api.replicate.com/openapi.json
https://replicate.com/docs/topics/predictions/streaming
https://replicate.com/docs/topics/predictions/lifecycle
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

Fields = dict[str, Any]
WORDS = ["Once upon", " a time\n", "", "the end."]
METRICS: Fields = {"input_token_count": 11, "output_token_count": 7, "predict_time": 0.5}
ENDED = ("succeeded", "failed", "canceled", "aborted")


@dataclass
class ReplicateCloud:
    """Says ``words`` to every sound request; a prediction runs until its gate opens.

    :param takes: inputs of the model, an unknown one is dropped without a word.
    :param shown: words that a prediction shows before the gate.
    :param stream_url: instead of its own; "" for none.
    :param cut_after: output events, then the stream of events ends without its last.
    :param error_after: output events, then the prediction fails.
    """

    words: list[str] = field(default_factory=lambda: list(WORDS))
    takes: frozenset[str] = frozenset({"prompt", "system_prompt", "max_tokens", "temperature"})
    metrics: Fields = field(default_factory=lambda: dict(METRICS))
    ends: str = "succeeded"
    status: int = 201
    shown: int = 0
    stream_url: str | None = None
    cut_after: int | None = None
    error_after: int | None = None
    lost_looks: int = 0  # GETs that fail
    longest_wait: float = 60.0  # seconds, whatever is preferred
    junk: Any = None  # instead of a prediction that was made
    inputs: list[Fields] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    predictions: dict[str, Fields] = field(default_factory=dict)
    address: tuple[str, int] = ("127.0.0.1", 0)

    def __post_init__(self) -> None:
        self.gate, self.made, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.gate.set()

    @property
    def root(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ReplicateCloud"]:
        app = web.Application(middlewares=[self._authenticate], client_max_size=2**26)
        app.router.add_post("/v1/models/{owner}/{name}/predictions", self._create)
        app.router.add_get("/v1/predictions/{id}", self._get)
        app.router.add_post("/v1/predictions/{id}/cancel", self._cancel)
        app.router.add_get("/v1/files/{id}", self._stream)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, *self.address).start()
        self.address = runner.addresses[0][:2]
        try:
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.raw_path}")
        self.headers.append(dict(request.headers))
        if request.headers.get("Authorization") != "Bearer cloud-secret":
            detail = "You did not pass a valid authentication token"
            return web.json_response({"title": "Unauthenticated", "detail": detail}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self.inputs.append(body["input"])
        self.made.set()
        if self.status != 201:
            headers = {"Retry-After": "7", "Location": f"{self.url}/elsewhere"}
            detail = {"title": "no", "detail": "- input: prompt is required", "status": self.status}
            return web.json_response(detail, status=self.status, headers=headers)
        if self.junk is not None:
            return web.json_response(self.junk, status=201)
        if not {"prompt", "messages"} & body["input"].keys():
            return web.json_response({"detail": "- input: prompt is required"}, status=422)
        id_ = f"{len(self.predictions):026d}"
        model = "{owner}/{name}".format(**request.match_info)
        kept = {name: value for name, value in body["input"].items() if name in self.takes}
        prediction = self._new(id_, model, kept)
        self.predictions[id_] = prediction
        waiting = request.headers.get("Prefer", "")
        if waiting.startswith("wait"):
            seconds = float(waiting.partition("=")[2] or 60)
            try:
                async with asyncio.timeout(min(seconds, self.longest_wait)):
                    await self.gate.wait()
            except TimeoutError:
                return web.json_response(prediction, status=202)
        return web.json_response(self._now(prediction) if waiting else prediction, status=201)

    def _new(self, id_: str, model: str, kept: Fields) -> Fields:
        urls = {"get": f"{self.url}/predictions/{id_}", "web": f"https://replicate.com/p/{id_}"}
        urls["cancel"] = urls["get"] + "/cancel"
        stream = f"{self.url}/files/{id_}" if self.stream_url is None else self.stream_url
        if stream:
            urls["stream"] = stream
        return {
            "id": id_, "model": model, "version": "hidden", "input": kept, "logs": "",
            "output": None, "data_removed": False, "error": None, "status": "starting",
            "created_at": "2026-11-30T12:00:00.000Z", "urls": urls,
        }  # fmt: skip

    def _now(self, prediction: Fields) -> Fields:
        """Let the prediction go on as far as it may."""
        if prediction["status"] in ENDED:
            return prediction
        if not self.gate.is_set():
            output = self.words[: self.shown]
            prediction.update(status="processing" if output else "starting", output=output or None)
        elif self.ends == "succeeded":
            prediction.update(status="succeeded", output=self.words, metrics=self.metrics)
        else:
            prediction.update(status=self.ends, error="Something went wrong")
        return prediction

    async def _get(self, request: web.Request) -> web.Response:
        if self.lost_looks:
            self.lost_looks -= 1
            return web.json_response({"detail": "no"}, status=503)
        return web.json_response(self._now(self.predictions[request.match_info["id"]]))

    async def _cancel(self, request: web.Request) -> web.Response:
        prediction = self.predictions[request.match_info["id"]]
        if prediction["status"] not in ENDED:
            prediction["status"] = "canceled"
        self.cancelled.set()
        return web.json_response(prediction)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        prediction = self.predictions[request.match_info["id"]]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(self.words):
            if number == self.shown:
                await self.gate.wait()
            if number == self.cut_after:
                await response.write(b":408: 408 Request Timeout\n\n")
                return response
            if number == self.error_after:
                prediction.update(status="failed", error="Something went wrong")
                await response.write(_event("error", b'{"detail": "Something went wrong"}'))
                await response.write(_event("done", b'{"reason": "error"}'))
                return response
            await response.write(_event("output", word.encode(), f"1690212292:{number}"))
            await asyncio.sleep(0)  # pieces of their own
        await response.write(_event("done", b"{}"))
        return response


def _event(name: str, data: bytes, id_: str = "1690212292:9") -> bytes:
    lines = b"".join(b"data: %b\n" % line for line in data.split(b"\n"))
    return b"event: %b\nid: %b\n%b\n" % (name.encode(), id_.encode(), lines)
