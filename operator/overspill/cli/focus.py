"""Costs as FOCUS 1.0, the open specification for billing data: a row for each side of a service.

https://focus.finops.org/focus-specification/v1-0/. A cell that is empty is null. Nobody sends a
bill for own replicas: billed is what they cost at the price that their service gives.
"""

import json
from collections.abc import Iterable, Iterator

from overspill.api.budget import Window
from overspill.api.conditions import timestamp
from overspill.api.service import InferenceService
from overspill.api.status import CostStatus
from overspill.ledger.windows import bounds

DAY = 86_400  # seconds
COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountCategory",
    "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountStatus",
    "CommitmentDiscountType", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceIssuerName", "ListCost", "ListUnitPrice",
    "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
)  # fmt: skip
Charge = dict[str, object]
OWN = "own cluster"


def charges(services: Iterable[InferenceService], now: float) -> Iterator[list[object]]:
    """Yield the rows of services whose costs are known, in the order of ``COLUMNS``.

    :param now: seconds since the epoch; the period is the 24 hours before its full hour.
    """
    for service in services:
        if service.status.cost:
            for charge in _charges(service, service.status.cost, int(now) // 3600 * 3600):
                yield [charge.get(column, "") for column in COLUMNS]


def _charges(service: InferenceService, cost: CostStatus, end: int) -> Iterator[Charge]:
    price, refs = float(service.spec.cost.gpu_hour), service.spec.spillover.providers
    yield _common(service, end, cost.gpu_dollars, OWN) | {
        "ChargeDescription": f"accelerator-hours of the replicas of {service.key}",
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
        "PricingQuantity": cost.gpu_hours,
        "PricingUnit": "Hours",
        "ConsumedQuantity": cost.gpu_hours,
        "ConsumedUnit": "Hours",
        "SkuId": "accelerator-hour",
        "SkuPriceId": "accelerator-hour",
    }
    names = {f"{ref.namespace or service.metadata.namespace}/{ref.name}" for ref in refs}
    yield _common(service, end, cost.spilled_dollars, " + ".join(sorted(names)) or "none") | {
        "ChargeDescription": f"tokens of requests to {service.key} that providers answered",
        "SkuId": "tokens",
        "SkuPriceId": "tokens",
    }


def _common(service: InferenceService, end: int, dollars: float, provider: str) -> Charge:
    """Return what both sides have.

    :param end: of the charge's period, seconds since the epoch.
    """
    begin = end - DAY
    month = bounds(Window.MONTH, begin)
    return {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), dollars),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), provider),
        "BillingAccountId": provider,
        "BillingCurrency": "USD",
        "BillingPeriodStart": timestamp(month[0]),
        "BillingPeriodEnd": timestamp(month[1]),
        "ChargePeriodStart": timestamp(begin),
        "ChargePeriodEnd": timestamp(end),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ResourceId": service.metadata.uid,
        "ResourceName": service.key,
        "ResourceType": service.kind,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Overspill",
        "SubAccountId": service.metadata.namespace,
        "SubAccountName": service.metadata.namespace,
        "Tags": json.dumps({"model": service.served_name}),
    }
