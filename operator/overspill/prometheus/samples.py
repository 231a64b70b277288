"""What a query returns: a number per service, or the reason why there is none.

"No data", "not a number" and zero are three different inputs of a decision. Zero says that
nothing happened. NaN says that a ratio had nothing to divide (no request, so no latency).
No data says that nobody looked. What no count, rate or time of ours can be, a negative number or
one beyond all reason, is not a number either.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any


class Missing(Enum):
    """Why there is no number."""

    NO_DATA = "no data"
    NOT_A_NUMBER = "not a number"


LARGEST = 1e12  # products of two still have an integer

Value = float | Missing
Samples = dict[str, Value]  # by "namespace/name" of the service


def parse(vector: Iterable[dict[str, Any]]) -> Samples:
    """Turn an instant vector into one value per service.

    :param vector: ``data.result`` of Prometheus' query API, grouped by the service labels
        (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-vectors).
        Series without these labels belong to no service and are left out.
    :raises KeyError, ValueError: when it is not such a vector.
    """
    samples: Samples = {}
    for series in vector:
        labels = series["metric"]
        namespace, name = labels.get("service_namespace"), labels.get("service_name")
        if namespace and name:
            samples[f"{namespace}/{name}"] = _number(series["value"][1])
    return samples


def _number(text: str) -> Value:
    number = float(text)
    return number if 0 <= number <= LARGEST else Missing.NOT_A_NUMBER  # NaN is not in order
