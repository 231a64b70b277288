"""What one request may cost at a provider at most, what it did cost, and whose budgets pay it."""

from dataclasses import replace
from typing import Any

import orjson

from overspill.api.budget import Window
from overspill.gateway.call import COMPLETIONS, EMBEDDINGS, Call, Fields
from overspill.gateway.exchange import Exchange
from overspill.gateway.funds import Funds
from overspill.gateway.provider import Provider
from overspill.ledger.messages import OF_KEY, OF_PROVIDER, OF_SERVICE, Limits
from overspill.ledger.prices import Rates, Usage, cost, estimate
from overspill.ledger.purse import Reservation
from overspill.providers.base import Request

# Tokens of a request that names no limit, where a budget needs one. Models with a small limit
# refuse what is above it, so it is cautious; completions have a default of their own:
# https://platform.openai.com/docs/api-reference/completions/create#completions-create-max_tokens
MAX_OUTPUT, COMPLETIONS_OUTPUT = 4_096, 16
OVERHEAD = 64  # tokens that a provider's own template may add
TOOLS_OVERHEAD = 1_024  # with tools: the instructions how to call them, up to 700 at Anthropic
IMAGE_TOKENS = 50_000  # more than any provider counts for one image, however few bytes it has


class Charge:
    """The money of one attempt at a provider.

    :param held: what is set aside for it; None where no budget is asked.
    """

    def __init__(
        self, exchange: Exchange, rates: Rates, funds: Funds, held: Reservation | None
    ) -> None:
        self._exchange, self._rates, self._funds, self._held = exchange, rates, funds, held

    @property
    def request(self) -> Request:
        """What is asked: with a limit of the answer where one was counted with."""
        request = self._exchange.call.request
        if self._held is None:
            return request
        return replace(request, fields=limited(self._exchange.call))

    def settle(self, usage: Usage | None) -> int:
        """Charge a whole answer; return nano-dollars.

        Without its usage nobody knows what it cost: a budget is charged the most that was possible.
        """
        exchange, held = self._exchange, self._held
        exchange.usage = usage or estimate(len(exchange.call.body), exchange.chunks)
        exchange.cost = cost(self._rates, exchange.usage)
        if held is not None:
            exchange.cost = held.worst if usage is None else exchange.cost
            self._funds.settle(held, exchange.cost)
        return exchange.cost

    def break_off(self) -> None:
        """Charge an answer that ended early, unless it is settled.

        A usage that came before the end speaks of a part, so that a budget is charged the most.
        """
        exchange, held = self._exchange, self._held
        if held is None:
            self.settle(exchange.usage)
        elif held.open:
            exchange.usage = exchange.usage or estimate(len(exchange.call.body), exchange.chunks)
            exchange.cost = held.worst
            self._funds.settle(held, held.worst)

    def refund(self) -> None:
        """Charge nothing: the provider refused it, or was not reached."""
        if self._held is not None:
            self._funds.settle(self._held, 0)

    def close(self) -> int:
        """Charge the most that was possible, unless it is settled; return nano-dollars."""
        if self._held is None or not self._held.open:
            return 0
        self._funds.settle(self._held, self._held.worst)
        return self._held.worst


def accounts_of(exchange: Exchange, provider: Provider) -> dict[str, Limits]:
    """Return the accounts that a request to this provider is charged to, with their limits.

    Empty where neither the provider nor the service nor the client's key has a budget.
    """
    found: dict[str, Limits] = {}
    if provider.resource.spec.budget:
        found[f"{OF_PROVIDER}/{provider.key}"] = provider.resource.spec.budget.limits
    service = exchange.service.resource
    if service.spec.spillover.budget:
        found[f"{OF_SERVICE}/{service.key}"] = service.spec.spillover.budget.limits
    key = exchange.key
    if key.budget_per_day is not None:
        found[f"{OF_KEY}/{key.id}"] = {Window.DAY: key.budget_per_day}
    return found


def most(call: Call) -> Usage:
    """Return the most tokens that a provider can count for a request.

    No tokenizer makes more tokens of a text than it has bytes in UTF-8; an image is no text.
    """
    asked, wish = len(call.body), call.messages is not None
    if wish:  # as it came it may hold more, and ask for what is put into a cache
        asked = max(asked, len(orjson.dumps(call.messages)))
    overhead = TOOLS_OVERHEAD if call.fields.get("tools") else OVERHEAD
    prompt = asked + overhead + IMAGE_TOKENS * _images(call.fields)
    completion = 0 if call.endpoint is EMBEDDINGS else _answers(call) * _limit(call)
    return Usage(prompt, completion, written=prompt if wish else 0)


def limited(call: Call) -> Fields:
    """Return the fields of a request with a limit of its answer, ours where it names none."""
    if call.endpoint is EMBEDDINGS or _given(call):
        return call.fields
    return call.fields | {"max_tokens": _limit(call)}


def _limit(call: Call) -> int:
    """Return the most tokens of one answer; of two limits, nobody knows which is obeyed."""
    ours = COMPLETIONS_OUTPUT if call.endpoint is COMPLETIONS else MAX_OUTPUT
    return max(_given(call), default=ours)


def _given(call: Call) -> list[int]:
    names = ("max_tokens", "max_completion_tokens")
    return [value for name in names if (value := call.fields.get(name)) is not None]


def _answers(call: Call) -> int:
    """Return how many answers are made: n or best_of, for each prompt."""
    many = max(call.choices, call.fields.get("best_of") or 1)
    prompt = call.fields.get("prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return many * (len(prompt) if several and prompt else 1)


def _images(fields: Fields) -> int:
    return sum(
        isinstance(part, dict) and part.get("type") == "image_url"
        for message in fields.get("messages") or ()
        for part in _parts(message)
    )


def _parts(message: Any) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []
