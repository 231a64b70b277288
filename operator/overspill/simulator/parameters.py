"""Latency models as files, YAML or JSON: those that come with the package, and a user's own.

``overspill calibrate`` writes them, ``overspill simulate --engine`` reads them.
"""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from overspill.api.base import describe
from overspill.simulator.calibration import Fit
from overspill.simulator.engine import LatencyModel

BUNDLED = Path(__file__).with_name("engines")
MAX_BYTES = 65_536
DIGITS = 4  # that are kept; more than any fit knows

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ParametersError(ValueError):
    """A file cannot be read; says which, the field, and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Errors(_Part):
    """Standard errors of the parameters."""

    alpha: Seconds
    beta: Seconds
    gamma: Seconds


class Residuals(_Part):
    """Root mean square of what the model misses by, as a part of what it says."""

    ttft: Seconds
    itl: Seconds


class Parameters(_Part):
    """One engine. What is not measured has neither errors nor residuals."""

    alpha: Seconds
    beta: Seconds
    gamma: Seconds
    errors: Errors | None = None
    residuals: Residuals | None = None
    source: Annotated[str, Field(max_length=1000)] = ""

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not self.alpha + self.beta + self.gamma:
            raise ValueError("one of alpha, beta and gamma must be more than 0")
        return self

    @classmethod
    def of(cls, fit: Fit, source: str) -> Self:
        """Return what a fit found, rounded.

        :param source: what was measured, where and when.
        """
        return cls(
            **_rounded(fit.model),
            errors=Errors(**_rounded(fit.errors)),
            residuals=Residuals(ttft=round(fit.ttft, 3), itl=round(fit.itl, 3)),
            source=source,
        )

    @property
    def model(self) -> LatencyModel:
        """Return them as the simulator computes with them."""
        return LatencyModel(self.alpha, self.beta, self.gamma)

    def text(self) -> str:
        """Return the file."""
        plain = self.model_dump(exclude_none=True)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)


def names() -> list[str]:
    """Return the names of the bundled sets."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load(engine: str) -> Parameters:
    """Read a set.

    :param engine: a bundled one's name, or a file's path.
    :raises ParametersError: there is none, or it makes no sense.
    """
    if engine in names():
        return _read(BUNDLED / f"{engine}.yaml")
    path = Path(engine)
    if not path.exists():
        raise ParametersError(f"{engine} is neither a file nor one of: {', '.join(names())}")
    return _read(path)


def _read(path: Path) -> Parameters:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ParametersError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ParametersError(f"{path}: larger than {MAX_BYTES} bytes: give what calibrate wrote")
    try:
        return Parameters.model_validate(yaml.safe_load(raw))
    except ValidationError as error:
        raise ParametersError(f"{path}: {describe(error)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ParametersError(f"{path}: no YAML: {' '.join(str(error).split())}") from None


def _rounded(model: LatencyModel) -> dict[str, float]:
    """Return the parameters by name."""
    return {name: float(f"{value:.{DIGITS}g}") for name, value in vars(model).items()}
