"""From an upstream's answer to the client: streams event by event, the rest as a whole.

Nothing goes out before the upstream's first content, so that until then another target can
be tried. After it, pieces of an engine's stream go from socket to socket without waking a task,
as long as the client reads. Events are passed on as they came; only the usage chunk that we asked
for and the client did not is taken out, and the cost is put before the end.
"""

from collections.abc import Callable
from typing import Any

from overspill.api import sse
from overspill.api.names import HEADER_COST
from overspill.api.values import format_money
from overspill.gateway.call import EMBEDDINGS
from overspill.gateway.errors import StreamBroken
from overspill.gateway.exchange import Exchange
from overspill.gateway.metrics import DestinationMetrics
from overspill.gateway.upstream import UpstreamConnection
from overspill.gateway.wire import wire_of
from overspill.ledger.prices import BYTES_PER_TOKEN, Usage
from overspill.providers.base import MAX_ANSWER, Answer, AnswerBroken, Fault

MAX_BEFORE_CONTENT = 1024 * 1024  # bytes of a stream without content, kept until the first comes
TAIL_SECONDS = 1.0  # for the end of a stream after its [DONE]
BROKEN = (StreamBroken, AnswerBroken)


class NotBegun(Exception):
    """The answer failed before its first content.

    :param fault: of a provider.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Relay:
    """One answer on its way to the client.

    :param settle: turns usage (or its absence) into nano-dollars.
    :param first_byte: seconds to the first content.
    :param idle: seconds between two pieces after it.
    :param began: called when there is an answer: at its first content, or when the whole is there.
    """

    def __init__(
        self,
        exchange: Exchange,
        answer: Answer,
        series: DestinationMetrics,
        clock: Callable[[], float],
        settle: Callable[[Usage | None], int],
        *,
        first_byte: float,
        idle: float,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        self.exchange, self.answer, self.series = exchange, answer, series
        self.clock, self.settle, self.began = clock, settle, began
        self.first_byte, self.idle = first_byte, idle
        call = exchange.call
        answers = call.endpoint is not EMBEDDINGS
        self.wire = wire_of(exchange.reply.api, call.wants_usage, answers)
        self.splitter = sse.EventSplitter()
        self.out: list[bytes] = []  # events for the client

    async def run(self) -> None:
        """Relay to the end.

        :raises NotBegun: when nothing had come that a client could use.
        :raises StreamBroken: when the answer ended early after that.
        """
        try:
            if self.exchange.call.stream:
                await self._stream()
            else:
                await self._unary()
        except BROKEN as error:
            if self.exchange.first_token is None and self.exchange.chunks == 0:
                fault = error.fault if isinstance(error, AnswerBroken) else Fault.SERVER_ERROR
                raise NotBegun(str(error), fault) from None
            raise StreamBroken(str(error)) from None

    async def _unary(self) -> None:
        pieces: list[bytes] = []
        size = 0
        deadline = self.clock() + self.first_byte
        while data := await self.answer.read(self._timeout(deadline)):
            self.exchange.chunks += 1 + len(data) // BYTES_PER_TOKEN
            pieces.append(data)
            size += len(data)
            if size > MAX_ANSWER:
                raise StreamBroken(f"the answer exceeds {MAX_ANSWER} bytes")
        body = b"".join(pieces)
        answer = sse.parse(body)
        if not answer:
            raise StreamBroken("the answer is not a JSON object")
        self.began()
        exchange = self.exchange
        exchange.usage = self.wire.usage_of(answer)
        self._time_unary(answer.get("timings"))
        cost = self.settle(exchange.usage)
        headers = [*exchange.headers(), (HEADER_COST.encode(), format_money(cost).encode())]
        await exchange.reply.success(body, headers)

    def _time_unary(self, timings: Any) -> None:
        """Find out when the first token was there, where the engine says so (llama.cpp does)."""
        exchange = self.exchange
        if not exchange.call.endpoint.streams:
            exchange.first_token = self.clock() - exchange.arrived
        elif isinstance(timings, dict):
            prompt, token = timings.get("prompt_ms"), timings.get("predicted_per_token_ms")
            if isinstance(prompt, (int, float)):
                exchange.first_token = exchange.sent + prompt / 1000
            if isinstance(token, (int, float)):
                exchange.token_seconds = token / 1000
        if exchange.first_token is not None:
            self.series.ttft.observe(exchange.first_token)

    async def _stream(self) -> None:
        reply, deadline = self.exchange.reply, self.clock() + self.first_byte
        begun = False
        kept = 0  # bytes of what has come without content
        while not self.wire.done:
            data = await self.answer.read(self._timeout(deadline))
            if not data:
                raise StreamBroken("the stream ended before its last event")
            kept += self._inspect(data)
            if self.exchange.first_token is not None or self.wire.done:
                if not begun:
                    begun = True
                    self.began()
                    await reply.begin_stream(self.exchange.destination, self.exchange.reason)
                await self._pass_all_on()
            elif kept > MAX_BEFORE_CONTENT:
                raise StreamBroken(f"no content in {MAX_BEFORE_CONTENT} bytes of a stream")
            if self.wire.fault:
                raise StreamBroken(self.wire.fault)
        cost = self.settle(self.exchange.usage)
        self.out.append(sse.comment(f"{HEADER_COST}={format_money(cost)}"))
        await reply.finish(b"".join(self.out) + self.wire.end)
        await self._finish_upstream()

    async def _pass_all_on(self) -> None:
        """Send what is there, then what comes as long as nothing has to be waited for."""
        await self._send()
        if isinstance(self.answer, UpstreamConnection) and not (self.wire.done or self.wire.fault):
            await self.answer.pour(self._pass_on, self.idle)
            await self._send()

    async def _send(self) -> None:
        """Send what is there; the last piece waits for the end."""
        if not self.wire.done:
            await self.exchange.reply.write(b"".join(self.out))
            self.out.clear()

    def _pass_on(self, data: bytes) -> bool:
        """Send a piece at once; return whether the next may come like that."""
        self._inspect(data)
        if self.wire.done or self.wire.fault:
            return False
        if not self.exchange.reply.pass_on(b"".join(self.out)):
            return False
        self.out.clear()
        return True

    def _inspect(self, data: bytes) -> int:
        """Look at the events of one piece; return the bytes of those that the client gets."""
        try:
            events = self.splitter.feed(data)
        except sse.EventTooLarge as error:
            self.wire.fault = str(error)
            return 0
        contents = size = 0
        for event in events:
            first = self.exchange.first_token is None
            keep, content = self.wire.see(event, first)
            if self.wire.done or self.wire.fault:
                break
            contents += content
            if keep:
                self.out.append(event)
                size += len(event)
        self.exchange.usage = self.wire.usage or self.exchange.usage
        if contents:
            self._time(contents)
        return size

    def _time(self, contents: int) -> None:
        """Note the time of a piece that held that many events with content."""
        exchange, now = self.exchange, self.clock() - self.exchange.arrived
        if exchange.first_token is None:
            exchange.first_token = now
            self.series.ttft.observe(now)
        else:
            gap = (now - exchange.last_token) / contents
            for _ in range(contents):
                self.series.itl.observe(gap)
        exchange.chunks += contents
        exchange.last_token = now
        if exchange.chunks > 1:
            exchange.token_seconds = (now - exchange.first_token) / (exchange.chunks - 1)

    def _timeout(self, deadline: float) -> float:
        """Return the seconds that the next piece may take."""
        if self.exchange.chunks:
            return self.idle
        return max(0.001, deadline - self.clock())

    async def _finish_upstream(self) -> None:
        """Read to the end of the body, so that the connection can be used again."""
        deadline = self.clock() + TAIL_SECONDS
        try:
            while (left := deadline - self.clock()) > 0 and await self.answer.read(left):
                pass
        except BROKEN:
            pass  # the answer was complete; only the connection is lost
