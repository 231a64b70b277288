"""A stream arrives token by token, as the engine makes it, and runs to its end."""

import itertools
import time

import openai

from e2e.story import Story
from lab import platform


def test_stream_to_its_end(story: Story) -> None:
    story.apply("chat")
    story.wait_ready("chat", 1)
    url = f"http://127.0.0.1:{platform.NODE_PORT}/v1"
    sdk = openai.OpenAI(base_url=url, api_key=story.key, max_retries=0, timeout=120)

    arrivals, finish, usage = [], None, None
    for chunk in sdk.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "Count from one to forty in words."}],
        max_tokens=60,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            arrivals.append(time.monotonic())
        if chunk.choices:
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage

    assert finish in ("stop", "length")
    assert usage is not None
    assert usage.completion_tokens >= len(arrivals) > 20
    # Buffered anywhere on the way, the pieces would arrive in one or a few bursts: as it is,
    # most of them stand apart (the engine makes about 40 tokens a second).
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert sum(gap > 0.001 for gap in gaps) > len(gaps) / 2
