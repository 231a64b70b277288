"""What a request costs at a provider, from its token usage and the listed price.

Money is an integer of nano-dollars. A price per million tokens is a whole number of
nano-dollars too, so a sum of requests is exact; one request is rounded up to a
nano-dollar, never down.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from overspill.api.provider import Price
from overspill.api.values import parse_money

MILLION = 1_000_000
MAX_TOKENS = 10**9  # more than any request has; a larger count is a fault
BYTES_PER_TOKEN = 3  # a cautious average: real tokenizers need 3.5 to 4.5 bytes of English


class Usage(NamedTuple):
    """Tokens of one request. A tuple, because one is made for every request.

    :param cached: the part of ``prompt`` that the provider had cached.
    :param written: the part of ``prompt`` that it put into its cache, at the client's wish.
    """

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Rates of a whole request whose prompt has more tokens than ``above``."""

    above: int
    rates: "Rates"


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per million tokens.

    :param written: of a token that is put into the provider's cache.
    :param unasked: the provider may do that with any prompt, not only at the client's wish.
    :param steps: of long prompts, the shortest first; without steps of their own.
    """

    prompt: int
    cached: int
    completion: int
    written: int
    unasked: bool = False
    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, price: Price) -> "Rates":
        """Take the rates from a provider object's price.

        What is put into the cache for five minutes costs 1.25 times the prompt:
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing
        """
        prompt, cached = parse_money(price.input_per_m_tok), price.cached_input_per_m_tok
        return cls(
            prompt,
            prompt if cached is None else parse_money(cached),
            parse_money(price.output_per_m_tok),
            -(-prompt * 5 // 4),
        )

    def at(self, prompt: int) -> "Rates":
        """Return the rates of a request with so many tokens of prompt."""
        return next((s.rates for s in reversed(self.steps) if prompt > s.above), self)


def cost(rates: Rates, usage: Usage) -> int:
    """Return nano-dollars of one request, rounded up."""
    return _cost(rates.at(usage.prompt), usage) if rates.steps else _cost(rates, usage)


def _cost(rates: Rates, usage: Usage) -> int:
    total = (
        (usage.prompt - usage.cached - usage.written) * rates.prompt
        + usage.cached * rates.cached
        + usage.written * rates.written
        + usage.completion * rates.completion
    )
    return -(-total // MILLION)


def worst_case(rates: Rates, most: Usage) -> int:
    """Return the most nano-dollars that a request may cost, cached or not, and however long.

    :param most: no more tokens than these are counted; ``written``: all of them may be.
    """
    prompt, answer = most.prompt, most.completion
    within = [rates, *(step.rates for step in rates.steps if step.above < prompt)]
    written = prompt if rates.unasked else most.written
    uses = (
        Usage(prompt, answer),
        Usage(prompt, answer, cached=prompt),
        Usage(prompt, answer, written=written),
    )
    return max(_cost(of, use) for of in within for use in uses)


def parse_usage(raw: Any, answers: bool = True) -> Usage | None:
    """Read the ``usage`` object of an OpenAI answer; None when it is not a sound one.

    Nothing was used by no request: servers that do not count say so.

    ``cache_write_tokens`` is no field of OpenAI: so are Anthropic's cache writes told in its form.

    https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage

    :param answers: tokens were made, too, and must be told; embeddings only read.
    """
    if not isinstance(raw, dict):
        return None
    found = raw.get("prompt_tokens_details")
    details = found if isinstance(found, dict) else {}
    cached, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    made = completion_of(raw) if answers else raw.get("completion_tokens", 0)
    numbers: tuple[Any, ...] = (raw.get("prompt_tokens"), made, cached, written)
    for number in numbers:
        if type(number) is not int or not 0 <= number <= MAX_TOKENS:
            return None
    prompt, completion, known, put = numbers
    if prompt + completion == 0:
        return None
    known = min(known, prompt)
    return Usage(prompt, completion, known, min(put, prompt - known))


def completion_of(usage: dict[str, Any]) -> Any:
    """Return the tokens that were made, with those of thoughts; None where they are not told.

    OpenAI counts thoughts in ``completion_tokens``. xAI, and Gemini in OpenAI's form, bill them as
    well but leave them out there; ``total_tokens`` has them.

    https://docs.x.ai/docs/key-information/consumption-and-rate-limits
    """
    made, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
    total = usage.get("total_tokens")
    if type(made) is int and type(prompt) is int and type(total) is int:
        return max(made, total - prompt)
    return made


def estimate(prompt_bytes: int, chunks: int) -> Usage:
    """Return a usage for an answer that ended without one: never zero, marked as estimated.

    :param prompt_bytes: size of the request body.
    :param chunks: pieces of a stream that were seen, or a whole answer's size in tokens.
    """
    return Usage(prompt_bytes // BYTES_PER_TOKEN + 1, max(chunks, 1), estimated=True)
