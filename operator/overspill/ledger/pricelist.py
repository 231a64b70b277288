"""What a model costs where its provider's object does not say: the list of `genai-prices`.

The list is part of that package and was published with it; nothing is fetched at run time, so how
old it is, is known exactly. A price that the object gives always wins. A model gets a price of the
list only if tokens are all that its provider bills: what else there is (pages, audio by the second,
images at a price of their own, hours of the day) no usage of an answer tells.

https://github.com/pydantic/genai-prices
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    TieredPrices,
    TimeOfDateConstraint,
)

from overspill.api.provider import InferenceProviderSpec, ProviderType
from overspill.api.values import NANO
from overspill.ledger.prices import Rates, Step

PUBLISHED = date(2026, 11, 10)  # the release that pyproject.toml pins; a test compares the two
OLD = timedelta(days=90)  # providers change prices a few times a year

_INPUT, _CACHED, _WRITTEN, _OUTPUT = _TOKENS = (
    "input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok",
)  # fmt: skip
# Of what is asked for by fields that no request of ours carries.
_NEVER_ASKED = ("cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount")
_DEPLOYMENTS = "azure"  # names are the user's own there, and say nothing of the model

# Read now, when nobody waits: 0.2 s and 5 MB more than the programs take at their start anyway.
_LIST = get_snapshot()


def rates_of(spec: InferenceProviderSpec, today: date) -> dict[str, Rates]:
    """Return the rates of each model of a provider that has a price.

    :param today: list prices may change at a day that is known ahead.
    """
    found = {model.name: rates(spec, model.name, today) for model in spec.models}
    return {name: known for name, known in found.items() if known is not None}


def rates(spec: InferenceProviderSpec, name: str, today: date = PUBLISHED) -> Rates | None:
    """Return a model's rates: its own, else those of the list; None where there are none."""
    own = next((m.price for m in spec.models if m.name == name), None)
    return Rates.of(own) if own else _listed(spec, name, today)


def listed(spec: InferenceProviderSpec, today: date) -> dict[str, Rates | None]:
    """Return what the list says of the models that have no price of their own."""
    return {m.name: _listed(spec, m.name, today) for m in spec.models if m.price is None}


def is_old(today: date) -> bool:
    """Whether prices are likely to have changed since."""
    return today > PUBLISHED + OLD


def _listed(spec: InferenceProviderSpec, name: str, today: date) -> Rates | None:
    if spec.azure_api_version is not None:
        return None
    try:
        provider, model = _LIST.find_provider_model(name, None, None, spec.url)
    except LookupError:
        return None
    if provider.id == _DEPLOYMENTS or _by_the_hour(model):
        return None
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    return _rates(model.get_prices(noon), spec.type is not ProviderType.ANTHROPIC)


def _by_the_hour(model: ModelInfo) -> bool:
    prices: Iterable[ConditionalPrice] = model.prices if isinstance(model.prices, list) else ()
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices)


def _rates(price: ModelPrice, unasked: bool) -> Rates | None:
    """Return a price of the list as rates; None when it is not of tokens alone.

    :param unasked: the provider fills its cache by itself, and bills it.
    """
    terms = {key: value for key, value in vars(price).items() if value is not None}
    if _INPUT not in terms or terms.keys() - {*_TOKENS, *_NEVER_ASKED}:
        return None
    if not any(terms.get(key) for key in (_INPUT, _OUTPUT)):
        return None  # a zero of somebody else's list is no reason to count nothing
    starts = {t.start for v in terms.values() if isinstance(v, TieredPrices) for t in v.tiers}
    steps = tuple(Step(start, _above(terms, start, unasked)) for start in sorted(starts))
    base = _above(terms, -1, unasked)
    return Rates(base.prompt, base.cached, base.completion, base.written, base.unasked, steps)


def _above(terms: dict[str, Any], start: int, unasked: bool) -> Rates:
    """Return the rates of a prompt that has more tokens than ``start``, by a little."""
    prompt = _nano(terms[_INPUT], start)
    cached, written = (
        _nano(terms[key], start) if key in terms else prompt for key in (_CACHED, _WRITTEN)
    )
    completion = _nano(terms[_OUTPUT], start) if _OUTPUT in terms else 0  # embeddings only read
    return Rates(prompt, cached, completion, written, unasked and written > prompt)


def _nano(value: Decimal | TieredPrices, start: int) -> int:
    """Return nano-dollars per million tokens; a fraction is rounded up."""
    if isinstance(value, TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= start]
        value = reached[-1] if reached else value.base
    return ceil(value * NANO)
