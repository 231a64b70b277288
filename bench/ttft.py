"""Time to first token of conversations on two real replicas, with our routing and at random.

    make bench-ttft
    python3 bench/ttft.py --model FILE.gguf --rounds 1 --conversations 2

Two llama.cpp servers run on this machine as `overspill try` starts them, one thread each, and
`overspill gateway --objects` before them. Some conversations take turns: each begins with the
same instructions and a text of its own of about 1,000 tokens, and a turn sends all of it again with
one more question. Ours sends through the gateway; random picks a replica for each request and goes
there directly, so the gateway's own time counts against ours. Rounds are interleaved, and each has
conversations that no replica has seen. Writes build/bench/ttft.json.
"""

import argparse
import asyncio
import json
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from overspill.cli.trial.model import download
from overspill.cli.trial.parts import HOST, server
from programs import KEY, ROOT, ours, running

RESULT = ROOT / "build" / "bench" / "ttft.json"
REPLICAS, SLOTS = 2, 4
ENGINE = {"batching": {"maxSequences": SLOTS}, "runtime": "llamacpp"}
CONTEXT = 2048  # tokens of one request
TURNS, ANSWER_TOKENS = 5, 16
AT_ONCE = 2  # requests in flight: what is measured is the work that a cache saves, and not a queue
REQUEST_SECONDS = 900.0  # a busy machine is slow
TEXT_WORDS, QUESTION_WORDS = 800, 60
WORDS = re.findall("[a-z]+", __doc__.lower())  # of which texts are made
INSTRUCTIONS = "You answer the questions of readers about a text, in one short sentence. " * 4
Row = dict[str, Any]


@dataclass
class Answer:
    """One answer: seconds to its first token, and what the engine counted."""

    turn: int
    ttft: float = 0.0
    text: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass
class Conversation:
    """A conversation so far."""

    number: int
    messages: list[dict[str, str]] = field(default_factory=list)
    turn: int = 0

    def ask(self) -> dict[str, Any]:
        """Return the body of the next turn."""
        chance = random.Random(1000 * self.number + self.turn)
        words = QUESTION_WORDS if self.messages else TEXT_WORDS
        if not self.messages:
            self.messages.append({"role": "system", "content": INSTRUCTIONS})
        text = f"Text {self.number}: " + " ".join(chance.choices(WORDS, k=words))
        self.messages.append({"role": "user", "content": text})
        self.turn += 1
        return {
            "model": "m",
            "messages": self.messages,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def send(session: aiohttp.ClientSession, url: str, conversation: Conversation) -> Answer:
    """Take a turn of a conversation."""
    body = conversation.ask()
    answer, began = Answer(conversation.turn), time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                _take(answer, json.loads(line[6:]), time.perf_counter() - began)
    conversation.messages.append({"role": "assistant", "content": answer.text})
    return answer


def _take(answer: Answer, event: dict[str, Any], seconds: float) -> None:
    for choice in event.get("choices", ()):
        answer.text += choice.get("delta", {}).get("content") or ""
    if answer.text and not answer.ttft:
        answer.ttft = seconds
    if usage := event.get("usage"):
        answer.prompt_tokens = usage["prompt_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        answer.cached_tokens = details.get("cached_tokens", 0)


async def converse(
    session: aiohttp.ClientSession, pick: Callable[[], str], numbers: range
) -> list[Answer]:
    """Let all conversations take their turns, one after the other; return the answers.

    :param pick: where the next request goes.
    :raises aiohttp.ClientError, TimeoutError: when a request fails: there is no figure then.
    """
    waiting = [Conversation(number) for number in numbers]
    answers: list[Answer] = []

    async def client() -> None:
        while waiting:
            conversation = waiting.pop(0)
            answers.append(await send(session, pick(), conversation))
            if conversation.turn < TURNS:
                waiting.append(conversation)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return answers


def summary(answers: list[Answer]) -> Row:
    """Return what came out, in milliseconds."""
    times = sorted(a.ttft * 1000 for a in answers)
    later = [a.ttft * 1000 for a in answers if a.turn > 1]
    cached = sum(a.cached_tokens for a in answers) / sum(a.prompt_tokens for a in answers)
    return {
        "requests": len(answers),
        "ttft_mean_ms": round(statistics.mean(times)),
        "ttft_p50_ms": round(statistics.median(times)),
        "ttft_p95_ms": round(times[max(0, -(-len(times) * 95 // 100) - 1)]),
        "later_turns_p50_ms": round(statistics.median(later)),
        "cached_share": round(cached, 3),
    }


async def measure(model: Path | None, rounds: int, conversations: int) -> list[Row]:
    """Run all rounds.

    :param model: a GGUF file; None loads the small one of `overspill try`.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        model = model or await download(folder)
        start = partial(server, model, "m", SLOTS, n_ctx=CONTEXT * SLOTS)
        logs = [folder / f"engine-{number}.log" for number in range(REPLICAS)]
        ports = [await stack.enter_async_context(start(log)) for log in logs]
        objects = folder / "objects"
        objects.mkdir()
        gateway = ours([(HOST, port) for port in ports], objects, ENGINE)
        await stack.enter_async_context(running(gateway))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
                # llama.cpp ends a connection that is idle for 5 s, perhaps just when it is used.
                connector=aiohttp.TCPConnector(force_close=True),
            )
        )
        urls, chance = [f"http://{HOST}:{port}" for port in ports], random.Random(1)
        policies = {"ours": lambda: gateway.url, "random": lambda: chance.choice(urls)}
        return [
            row
            for number in range(rounds)
            for row in await one_round(session, policies, number, conversations)
        ]


async def one_round(
    session: aiohttp.ClientSession,
    policies: dict[str, Callable[[], str]],
    number: int,
    conversations: int,
) -> list[Row]:
    """Return a row of each policy; they take turns in who is first."""
    names = list(policies) if number % 2 == 0 else list(reversed(policies))
    rows = []
    for place, name in enumerate(names):
        first = (number * len(names) + place) * conversations
        answers = await converse(session, policies[name], range(first, first + conversations))
        rows.append({"policy": name, "round": number, **summary(answers)})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print the medians over the rounds, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the small one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=6, help="of each round")
    options = parser.parse_args()
    rows = asyncio.run(measure(options.model, options.rounds, options.conversations))
    about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "rows": rows}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(about, indent=1) + "\n")
    for policy in ("ours", "random"):
        own = [row for row in rows if row["policy"] == policy]
        keys = [key for key in own[0] if key not in ("policy", "round")]
        print(policy, {key: statistics.median(row[key] for row in own) for key in keys})


if __name__ == "__main__":
    main()
