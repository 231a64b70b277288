"""What a service costs, own accelerators and cloud together: every figure that is shown. Pure.

Own hardware costs its price for each hour that a replica is placed, idle or not; so a token of it
is cheap only when there are many. What all of them would have cost at a provider is reckoned at the
base price of the first one that is listed: long prompts cost more there and a cache that is as good
as ours is taken for granted, so that the savings are rather too small than too large.
"""

from dataclasses import dataclass

from overspill.api.status import CostStatus
from overspill.api.values import NANO
from overspill.ledger.prices import MILLION, Rates

HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Use:
    """What a service took in 24 hours, or in the last one; named as ``queries.COSTS``.

    :param own_input: tokens of prompts that own replicas answered, without those in their cache.
    :param spilled_tokens: of all kinds, that providers counted.
    """

    gpu_hours: float = 0.0
    gpu_dollars: float = 0.0
    spilled_dollars: float = 0.0
    own_input: float = 0.0
    own_cached: float = 0.0
    own_output: float = 0.0
    spilled_tokens: float = 0.0
    gpu_dollars_hour: float = 0.0
    spilled_dollars_hour: float = 0.0

    @property
    def own_tokens(self) -> float:
        """Tokens of all kinds that own replicas read and made."""
        return self.own_input + self.own_cached + self.own_output


def cost(use: Use, replica_hour: float, rates: Rates | None) -> CostStatus:
    """Return all figures, not rounded; None where there is nothing to reckon with.

    :param replica_hour: US dollars that one placed replica costs in an hour.
    :param rates: of the first provider that has a price; None: there is none to compare with.
    """
    elsewhere = None if rates is None else at_cloud(use, rates)
    return CostStatus(
        gpu_hours=use.gpu_hours,
        gpu_dollars=use.gpu_dollars,
        spilled_dollars=use.spilled_dollars,
        dollars_per_hour=use.gpu_dollars_hour + use.spilled_dollars_hour,
        dollars_per_m_tok=_per_million(
            use.gpu_dollars + use.spilled_dollars, use.own_tokens + use.spilled_tokens
        ),
        own_dollars_per_m_tok=_per_million(use.gpu_dollars, use.own_tokens),
        cloud_dollars_per_m_tok=_per_million(use.spilled_dollars, use.spilled_tokens),
        saved_dollars=None if elsewhere is None else elsewhere - use.gpu_dollars,
        break_even_tokens_per_second=_break_even(use, replica_hour, elsewhere),
    )


def at_cloud(use: Use, rates: Rates) -> float:
    """Return the US dollars that a provider would have taken for what own replicas answered."""
    nano = (
        use.own_input * rates.prompt
        + use.own_cached * rates.cached
        + use.own_output * rates.completion
    ) / MILLION
    return nano / NANO


def _per_million(dollars: float, tokens: float) -> float | None:
    return dollars / tokens * MILLION if tokens else None


def _break_even(use: Use, replica_hour: float, elsewhere: float | None) -> float | None:
    """Return the tokens per second from which on one replica is cheaper than a provider.

    At the mix of tokens that was answered here, else at the price that was paid there.
    """
    if elsewhere is not None and use.own_tokens:
        token = elsewhere / use.own_tokens
    else:
        token = use.spilled_dollars / use.spilled_tokens if use.spilled_tokens else 0.0
    return replica_hour / HOUR / token if token and replica_hour else None
