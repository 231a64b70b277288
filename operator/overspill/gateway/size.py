"""What is known of a request's size before it is answered."""

from typing import NamedTuple

from overspill.gateway.call import COUNT_TOKENS, EMBEDDINGS, Call, media
from overspill.ledger.prices import Rates, Usage, cost, estimate

TYPICAL_TOKENS = 256  # of an answer whose length the client does not bound
MEDIA_TOKENS = 1_000  # of an image or a sound: what it is in bytes says nothing


class Size(NamedTuple):
    """What a request's cost is expected from."""

    prompt_bytes: int
    tokens: int  # of the answer, at most, or typically

    def cost(self, rates: Rates) -> int:
        """Return the nano-dollars that it is expected to cost."""
        return cost(rates, estimate(self.prompt_bytes, self.tokens))


def size_of(call: Call) -> Size:
    """Return the size of a call."""
    return Size(len(call.body), (call.token_limit or TYPICAL_TOKENS) * call.choices)


def expected_tokens(call: Call) -> int:
    """Return the tokens, of prompt and answer, with which a request counts until it has ended.

    As at OpenAI, the prompt is estimated by its length, and the answer counts as long as it may be.
    https://platform.openai.com/docs/guides/rate-limits
    """
    if call.endpoint is COUNT_TOKENS:
        return 0
    size, sizes = size_of(call), [len(data) for data in media(call.fields)]
    answer = 0 if call.endpoint is EMBEDDINGS else size.tokens
    prompt = estimate(size.prompt_bytes - sum(sizes), 1).prompt
    return prompt + answer + MEDIA_TOKENS * len(sizes)


def total(usage: Usage) -> int:
    """Return the tokens of prompt and answer that a request has used."""
    return usage.prompt + usage.completion
