"""Values that appear as strings in objects: quantities, durations, money.

Each has a pattern that goes into the CRD schema, so that the API server rejects
a bad one with the field's name, and a parser that turns a good one into a number.

* Quantity: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
* Duration: the units of Go's time.ParseDuration that an objective needs: ms, s, m, h
* Money: a decimal string of US dollars; inside, an integer of nano-dollars, so that sums are exact
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field

NANO = 1_000_000_000

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
DURATION_PATTERN = r"^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$"
MONEY_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"

Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=24)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=24)]
Money = Annotated[str, Field(pattern=MONEY_PATTERN, max_length=19)]

_SUFFIX = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


def parse_quantity(text: str) -> Decimal:
    """Return the plain number that a Kubernetes quantity stands for.

    :param text: for example ``500m`` (0.5 cores) or ``8Gi`` (bytes).
    :raises ValueError: when the text is not a quantity.
    """
    if not re.fullmatch(QUANTITY_PATTERN, text):
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 8Gi")
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    return Decimal(number) * _SUFFIX[suffix]


def parse_duration(text: str) -> float:
    """Return the seconds that a duration such as ``800ms`` or ``1m30s`` stands for.

    :raises ValueError: when the text is not a duration.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration such as 800ms, 2s, 10m or 1h")
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts))


def parse_money(text: str) -> int:
    """Return nano-dollars for a decimal string of US dollars.

    :raises ValueError: when the text is not a plain, non-negative decimal.
    """
    if not re.fullmatch(MONEY_PATTERN, text):
        raise ValueError(f"{text!r} is not an amount in dollars such as 0.80 or 1.75")
    return int(Decimal(text) * NANO)


def format_money(nano: int, digits: int = 9) -> str:
    """Return a decimal string of US dollars without trailing zeros (``0``, ``0.8``).

    :param nano: nano-dollars.
    :param digits: decimals kept, 0 to 9; the rest is rounded half to even.
    """
    if not nano:  # what the own replicas answer: every such request is told so twice
        return "0"
    dollars = round(Decimal(nano) / NANO, digits)
    text = f"{dollars:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
