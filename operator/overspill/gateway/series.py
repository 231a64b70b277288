"""Counters and histograms of one event loop: plain numbers, made into the library's families when
Prometheus asks.

The library's own samples take a lock and three calls for each increment, for programs with threads
(10 samples of a request were 8 % of its bytecodes). Families from a collector of one's own:
https://prometheus.github.io/client_python/collector/custom/
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add to it.

        :param amount: not negative.
        """
        self.value += amount


class Spread:
    """One series of a histogram.

    :param bounds: of its buckets, each inclusive and in order; above the last is one more.
    """

    __slots__ = ("_bounds", "numbers", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.numbers, self.total = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.numbers[bisect_left(self._bounds, value)] += 1
        self.total += value


Series = TypeVar("Series", Count, Spread)


class Family(Collector, Generic[Series]):
    """All series of one metric.

    :param labels: their names.
    """

    def __init__(self, name: str, text: str, labels: Labels) -> None:
        self._name, self._text, self._names = name, text, labels
        self._series: dict[Labels, Series] = {}

    def labels(self, *values: str) -> Series:
        """Return the series of these values, which exists from now on."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self._new()
        return found

    @abstractmethod
    def _new(self) -> Series:
        """Return a series at 0."""


class Counters(Family[Count]):
    """A counter."""

    def collect(self) -> Iterator[Metric]:
        """Yield what there is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._names)
        for labels, series in self._series.items():
            family.add_metric(labels, series.value)
        yield family

    def _new(self) -> Count:
        return Count()


class Histograms(Family[Spread]):
    """A histogram.

    :param bounds: of its buckets, each inclusive and in order; above the last is one more.
    """

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float]) -> None:
        super().__init__(name, text, labels)
        self._bounds = bounds
        self._told = [*map(floatToGoString, bounds), "+Inf"]

    def collect(self) -> Iterator[Metric]:
        """Yield what there is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._names)
        for labels, series in self._series.items():
            buckets = list(zip(self._told, accumulate(series.numbers), strict=True))
            family.add_metric(labels, buckets, series.total)
        yield family

    def _new(self) -> Spread:
        return Spread(self._bounds)
