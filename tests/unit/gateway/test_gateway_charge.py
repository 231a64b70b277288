"""The most that a request can cost at a provider."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill.gateway.call import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, Endpoint, parse
from overspill.gateway.charge import (
    IMAGE_TOKENS,
    MAX_OUTPUT,
    OVERHEAD,
    TOOLS_OVERHEAD,
    limited,
    most,
)
from overspill.ledger.prices import Rates, Usage, cost, worst_case

HI = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ASK = {"model": "m", "prompt": "hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
LOOK = {"model": "m", "messages": [{"role": "user", "content": [IMAGE, IMAGE]}]}


def call_of(endpoint: Endpoint, body: dict[str, Any]) -> Any:
    return parse(endpoint, orjson.dumps(body))


@pytest.mark.parametrize(
    ("endpoint", "body", "output"),
    [
        (CHAT, HI, MAX_OUTPUT),
        (CHAT, HI | {"max_tokens": 7}, 7),
        (CHAT, HI | {"max_tokens": None, "max_completion_tokens": 9}, 9),
        (CHAT, HI | {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (CHAT, HI | {"max_tokens": 7, "n": 3}, 21),
        (COMPLETIONS, ASK, 16),
        (COMPLETIONS, ASK | {"prompt": ["a", "b"]}, 32),
        (COMPLETIONS, ASK | {"max_tokens": 7, "n": 2, "best_of": 5}, 35),
        (COMPLETIONS, ASK | {"max_tokens": 7, "prompt": ["a", "b"]}, 14),
        (COMPLETIONS, ASK | {"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
        (COMPLETIONS, ASK | {"max_tokens": 7, "prompt": [[1, 2], [3]]}, 14),
        (EMBEDDINGS, {"model": "m", "input": "hi"}, 0),
    ],
)
def test_the_longest_answer(endpoint: Endpoint, body: dict[str, Any], output: int) -> None:
    call = call_of(endpoint, body)
    assert most(call) == Usage(len(call.body) + OVERHEAD, output)


def test_an_image_counts_for_more_than_its_bytes() -> None:
    call = call_of(CHAT, LOOK)
    assert most(call).prompt == len(call.body) + OVERHEAD + 2 * IMAGE_TOKENS


def test_tools_come_with_instructions_of_the_provider() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = call_of(CHAT, HI | {"tools": [tool]})
    assert most(call).prompt == len(call.body) + TOOLS_OVERHEAD


def test_a_request_without_a_limit_gets_the_one_that_was_counted_with() -> None:
    assert limited(call_of(CHAT, HI))["max_tokens"] == MAX_OUTPUT
    assert limited(call_of(COMPLETIONS, ASK))["max_tokens"] == 16
    named = call_of(CHAT, HI | {"max_completion_tokens": 9})
    assert limited(named) is named.fields
    assert "max_tokens" not in limited(call_of(EMBEDDINGS, {"model": "m", "input": "hi"}))


def test_what_goes_to_anthropic_as_it_came_may_be_put_into_its_cache() -> None:
    thought = {"type": "thinking", "thinking": "h" * 500, "signature": "s"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "ho"}]},
        {"role": "user", "content": "hi"},
    ]
    body = {"model": "m", "max_tokens": 7, "messages": turns}
    found = most(call_of(MESSAGES, body))
    assert found.prompt == found.written >= len(orjson.dumps(body))
    assert found.completion == 7


RATE = st.integers(0, 10**12)


@given(
    st.builds(Rates, RATE, RATE, RATE, RATE),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.data(),
)
def test_no_usage_costs_more_than_the_worst_case(
    rates: Rates, prompt: int, completion: int, data: st.DataObject
) -> None:
    wish = data.draw(st.booleans())
    worst = worst_case(rates, Usage(prompt, completion, written=prompt if wish else 0))
    used, answer = data.draw(st.integers(0, prompt)), data.draw(st.integers(0, completion))
    cached = data.draw(st.integers(0, used))
    put = data.draw(st.integers(0, used - cached)) if wish else 0
    assert cost(rates, Usage(used, answer, cached, put)) <= worst
