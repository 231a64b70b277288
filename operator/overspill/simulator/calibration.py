"""The latency model of an engine, from requests that it was seen to answer.

TTFT and ITL are linear in α, β and γ once one knows who else was in the batch, and a client that
sends all requests does: each request gives an equation for its first token and one for its further
tokens, in which the batch is the mean over that time. They are solved by least squares of the
relative residuals (the noise of times grows with the times), with no parameter below 0.

Limits: the way to the engine and back is in the times; a request that waited in the engine's queue
makes the engine look slow; the errors assume that residuals do not depend on each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from overspill.simulator.engine import LatencyModel
from overspill.simulator.traces import Request

UNITS = (LatencyModel(1, 0, 0), LatencyModel(0, 1, 0), LatencyModel(0, 0, 1))  # one parameter each
ROUNDS = 10  # of reweighting; two or three settle it
LEAST = 8  # requests below which a fit would say nothing

Vector = tuple[float, ...]


class CalibrationError(ValueError):
    """The measurements do not determine the model; says what is missing."""


@dataclass(frozen=True)
class Measured:
    """A request as its client saw it; its own time is when it was sent. Seconds on one clock."""

    request: Request
    first: float  # when its first token came
    end: float  # when its last token came

    @property
    def ttft(self) -> float:
        """Return the seconds to its first token."""
        return self.first - self.request.time

    @property
    def itl(self) -> float | None:
        """Return the mean seconds between two of its tokens; None where there is one only."""
        tokens = self.request.output_tokens - 1
        return (self.end - self.first) / tokens if tokens > 0 else None


@dataclass(frozen=True)
class Equation:
    """What one measured time says: ``factors · (α, β, γ) = seconds``."""

    factors: Vector
    seconds: float

    def predicted(self, parameters: Vector) -> float:
        """Return the seconds by the model."""
        return sum(f * p for f, p in zip(self.factors, parameters, strict=True))


@dataclass(frozen=True)
class Fit:
    """A model, how well its parameters are known, and how well it describes what was measured."""

    model: LatencyModel
    errors: LatencyModel  # standard errors, in the parameters' own units
    ttft: float  # root mean square of the residuals, as a part of what the model says
    itl: float


def fit(measured: Sequence[Measured]) -> Fit:
    """Return the model that fits best.

    :param measured: all requests that the engine had in that time, in any order.
    :raises CalibrationError: they are too few, or too much alike.
    """
    if len(measured) < LEAST:
        raise CalibrationError(f"{len(measured)} requests were answered, {LEAST} are needed")
    firsts = [_first(one, measured) for one in measured]
    furthers = [_further(one, measured) for one in measured if one.itl is not None]
    equations = firsts + furthers
    # Weighted by what the model says, not by what was measured: quick answers are often luck.
    # https://en.wikipedia.org/wiki/Iteratively_reweighted_least_squares
    weights = [1.0] * len(equations)
    parameters: Vector = ()
    for _ in range(ROUNDS):
        parameters = _least_squares(equations, weights)
        weights = [1 / equation.predicted(parameters) for equation in equations]
    errors = _errors(equations, weights, parameters)
    return Fit(
        LatencyModel(*parameters),
        LatencyModel(*errors),
        _residual(firsts, parameters),
        _residual(furthers, parameters),
    )


# Equations.


def _first(one: Measured, measured: Sequence[Measured]) -> Equation:
    batch = _batch(measured, one.request.time, one.first)
    factors = (
        unit.alpha + sum(share * unit.weight(r) for r, share in batch) + unit.prompt(one.request)
        for unit in UNITS
    )
    return Equation(tuple(factors), one.ttft)


def _further(one: Measured, measured: Sequence[Measured]) -> Equation:
    batch = _batch(measured, one.first, one.end)
    size = sum(share for _, share in batch)
    factors = (
        unit.alpha + sum(share * (unit.weight(r) + unit.token(r) / size) for r, share in batch)
        for unit in UNITS
    )
    return Equation(tuple(factors), one.itl or 0.0)


def _batch(measured: Sequence[Measured], begin: float, end: float) -> list[tuple[Request, float]]:
    """Return the requests that were under way, each with its share of the time."""
    length = end - begin
    if length <= 0:
        raise CalibrationError("an answer took no time: is there an engine behind the endpoint?")
    shares = (
        (one.request, (min(one.end, end) - max(one.request.time, begin)) / length)
        for one in measured
    )
    return [(request, share) for request, share in shares if share > 0]


# Least squares.


def _least_squares(equations: Sequence[Equation], weights: Sequence[float]) -> Vector:
    """Return the best parameters of which none is negative.

    The best non-negative solution is the plain one of those parameters that are not 0 in it; with
    three there are seven sets to try. Of plain solutions the larger ``x·b`` leaves less.
    """
    gram, right = _normal(equations, weights)
    best: Vector = (0.0, 0.0, 0.0)
    explained = 0.0
    for size in (1, 2, 3):
        for chosen in combinations(range(3), size):
            part = _solve(
                [[gram[i][j] for j in chosen] for i in chosen], [right[i] for i in chosen]
            )
            found = sum(x * right[i] for i, x in zip(chosen, part, strict=True))
            if min(part) >= 0 and found > explained:
                filled = dict(zip(chosen, part, strict=True))
                best, explained = tuple(filled.get(i, 0.0) for i in range(3)), found
    return best


def _normal(
    equations: Sequence[Equation], weights: Sequence[float]
) -> tuple[list[list[float]], list[float]]:
    """Return both sides of the normal equations."""
    rows = [
        ([weight * factor for factor in equation.factors], weight * equation.seconds)
        for equation, weight in zip(equations, weights, strict=True)
    ]
    gram = [[sum(row[i] * row[j] for row, _ in rows) for j in range(3)] for i in range(3)]
    return gram, [sum(row[i] * seconds for row, seconds in rows) for i in range(3)]


def _solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solve a small symmetric positive definite system by Gauss's elimination.

    :raises CalibrationError: it is singular.
    """
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i, pivot in enumerate(rows):
        if pivot[i] <= 1e-12 * matrix[i][i]:  # a column that the others make up
            raise CalibrationError("prompts, answers and parallel requests are too much alike")
        for row in rows[:i] + rows[i + 1 :]:
            factor = row[i] / pivot[i]
            row[:] = [value - factor * above for value, above in zip(row, pivot, strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def _errors(equations: Sequence[Equation], weights: Sequence[float], parameters: Vector) -> Vector:
    """Return the standard errors: roots of the diagonal of σ² (XᵀWX)⁻¹."""
    gram, _ = _normal(equations, weights)
    variance = len(equations) * _residual(equations, parameters) ** 2 / (len(equations) - 3)
    unit = [[float(i == j) for j in range(3)] for i in range(3)]
    return tuple(math.sqrt(variance * _solve(gram, unit[i])[i]) for i in range(3))


def _residual(equations: Sequence[Equation], parameters: Vector) -> float:
    """Return the root mean square of the residuals as a part of what the model says."""
    parts = [equation.seconds / equation.predicted(parameters) - 1 for equation in equations]
    return math.sqrt(sum(part * part for part in parts) / len(parts)) if parts else 0.0
