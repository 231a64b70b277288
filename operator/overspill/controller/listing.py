"""What a provider's status says of prices that its object does not give. Pure."""

from collections.abc import Iterator
from datetime import date

from overspill.api.provider import InferenceProviderSpec, ListPrice, PriceListStatus
from overspill.api.values import format_money
from overspill.controller.conditions import Verdict
from overspill.controller.reasons import Reason
from overspill.ledger import pricelist
from overspill.ledger.prices import Rates, Step

_REMEDY = "give spec.models[].price"


def of_prices(spec: InferenceProviderSpec, today: date) -> Verdict | None:
    """Return whether the prices that are used can be trusted; None: the object gives them all."""
    listed = pricelist.listed(spec, today)
    unknown = [model for model, rates in listed.items() if rates is None]
    published = f"the bundled price list of {pricelist.PUBLISHED}"
    if unknown:
        text = f"{published} has no price for {', '.join(unknown)} at {spec.host}"
        return Verdict("False", Reason.PRICE_MISSING, f"{text}; nothing spills there: {_REMEDY}")
    if not listed:
        return None
    used = f"prices of {', '.join(listed)} are from {published}"
    if pricelist.is_old(today):
        age = (today - pricelist.PUBLISHED).days
        text = f"{used}, {age} days old; upgrade Overspill, or {_REMEDY}"
        return Verdict("False", Reason.LIST_PRICES_OLD, text)
    return Verdict("True", Reason.LIST_PRICES, used)


def price_list(spec: InferenceProviderSpec, today: date) -> PriceListStatus | None:
    """Return the prices of the list that are used; None where the object gives them all."""
    listed = pricelist.listed(spec, today)
    if not listed:
        return None
    rows = [row for model, rates in listed.items() if rates for row in _rows(model, rates)]
    return PriceListStatus(published=pricelist.PUBLISHED.isoformat(), prices=rows)


def _rows(model: str, rates: Rates) -> Iterator[ListPrice]:
    for step in (Step(0, rates), *rates.steps):
        yield ListPrice(
            model=model,
            prompts_above=step.above,
            input_per_m_tok=format_money(step.rates.prompt),
            cached_input_per_m_tok=format_money(step.rates.cached),
            output_per_m_tok=format_money(step.rates.completion),
        )
