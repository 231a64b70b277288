"""One replica at the discrete-event level: how long a batch of requests takes.

The latency model is llm-d's (https://github.com/llm-inferno/queue-analysis): with requests of I
prompt and O answer tokens in the batch, an iteration takes
``T = α + Σ (β (I+O)/(O+1) + γ (I+O/2))``, a prompt ``T + (β+γ) I``, and each further token
``T + β + γ (I+O/2)``. β is about tokens that are computed, so tokens that the prefix cache holds do
not count for it; γ is about tokens that are read, which all are.

All requests of a batch advance together, one token per iteration. So a replica counts iterations,
and a request ends at a known count; how fast the count runs changes with the batch. That makes two
events for a request, whatever its length.

Limits: the work of a prompt is spread evenly over its request's iterations, as chunked prefill
does on average; nothing is preempted, since a request's KV cache is reserved when it begins; for
β and γ of the further tokens the batch's mean request stands for all.
"""

import heapq
import math
from dataclasses import dataclass

from overspill.simulator.traces import Request


@dataclass(frozen=True)
class LatencyModel:
    """Seconds: of an iteration, per token computed, per token read."""

    alpha: float
    beta: float
    gamma: float

    def weight(self, request: Request) -> float:
        """Return the seconds that a request in the batch adds to every iteration."""
        prompt, answer = request.input_tokens, max(1, request.output_tokens)
        computed = (prompt - request.cached_tokens + answer) / (answer + 1)
        return self.beta * computed + self.gamma * (prompt + answer / 2)

    def token(self, request: Request) -> float:
        """Return the seconds that one token of its own takes beyond the iteration."""
        return self.beta + self.gamma * (request.input_tokens + request.output_tokens / 2)

    def prompt(self, request: Request) -> float:
        """Return the seconds that its prompt takes beyond the iteration."""
        computed = request.input_tokens - request.cached_tokens
        return self.beta * computed + self.gamma * request.input_tokens


@dataclass(frozen=True)
class Engine:
    """What all replicas have in common."""

    model: LatencyModel
    slots: int  # requests in a batch
    kv_tokens: float  # of prompts and answers, that the KV cache holds


class Job:
    """A request on its way. Times in seconds."""

    __slots__ = ("began", "end", "first", "parts", "request", "state")

    def __init__(self, request: Request, parts: tuple[float, float, float]) -> None:
        """Take a request.

        :param parts: its weight, token and prompt by the latency model.
        """
        self.request = request
        self.parts = parts
        self.began = self.first = self.end = 0.0  # in a batch, the first token, the last
        self.state = WAITING

    @property
    def ttft(self) -> float:
        """Time to its first token, from its arrival."""
        return self.first - self.request.time

    @property
    def itl(self) -> float:
        """Mean time between two of its tokens; 0 where there is one only."""
        tokens = self.request.output_tokens - 1
        return max(0.0, self.end - self.first) / tokens if tokens > 0 else 0.0


WAITING, LOCAL, SPILLED, REFUSED = range(4)


class Replica:
    """A batch, and the clock that counts its iterations."""

    def __init__(self, engine: Engine, ordered: float) -> None:
        """Make an empty one.

        :param ordered: second from which it is billed.
        """
        self.ordered = ordered
        self.leaving = False
        self.running = 0
        self.version = 0  # of its batch: an end that was foreseen for another does not count
        self.tokens = 0  # reserved in the KV cache
        self._engine = engine
        self._batch: list[tuple[float, int, Job]] = []  # by the iteration at which they end
        self._joined = 0
        self._weight = self._token = 0.0  # sums over the batch
        self._done, self._at, self._step = 0.0, 0.0, math.inf  # the count of an empty one stands

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is reserved."""
        return self.tokens / self._engine.kv_tokens

    def has_room(self, tokens: int) -> bool:
        """Whether a request may join; one that is larger than the cache may, alone."""
        if self.running >= self._engine.slots:
            return False
        return self.tokens + tokens <= self._engine.kv_tokens or not self.running

    def join(self, now: float, job: Job) -> float:
        """Take a request in; return when the first of the batch ends, if nothing changes."""
        weight, token, prompt = job.parts
        request = job.request
        self._change(now, 1, weight, token, request.input_tokens + request.output_tokens)
        prefill = self._engine.model.alpha + self._weight + prompt
        job.began, job.first, job.state = now, now + prefill, LOCAL
        self._joined += 1
        end = self._done + prefill / self._step + max(0, request.output_tokens - 1)
        heapq.heappush(self._batch, (end, self._joined, job))
        return self._next_end()

    def finish(self, now: float) -> tuple[Job, float | None]:
        """Let the first of the batch go; return it, and when the next one ends."""
        job = heapq.heappop(self._batch)[2]
        weight, token, _ = job.parts
        request = job.request
        self._change(now, -1, -weight, -token, -request.input_tokens - request.output_tokens)
        job.end = now
        return job, self._next_end() if self._batch else None

    def _change(self, now: float, one: int, weight: float, token: float, tokens: int) -> None:
        self._done += (now - self._at) / self._step
        self._at = now
        self.version += 1
        self.running += one
        self.tokens += tokens
        if self.running:
            self._weight += weight
            self._token += token
            alpha = self._engine.model.alpha
            self._step = alpha + self._weight + self._token / self.running
        else:  # rounding ends with the batch
            self._weight = self._token = 0.0

    def _next_end(self) -> float:
        return self._at + max(0.0, self._batch[0][0] - self._done) * self._step
