"""Budgets: US dollars for providers, per calendar hour, day and month in UTC."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from overspill.api.base import Model, cel
from overspill.api.values import Money, format_money, parse_money


class Window(StrEnum):
    """A calendar window."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@cel(
    "has(self.perHour) || has(self.perDay) || has(self.perMonth)",
    "budget must set perHour, perDay or perMonth",
)
class BudgetSpec(Model):
    """What providers may cost at most, in US dollars; each window begins anew, in UTC."""

    per_hour: Money | None = Field(None, description="Per calendar hour, for example 5.")
    per_day: Money | None = Field(None, description="Per calendar day, for example 60.")
    per_month: Money | None = Field(None, description="Per calendar month, for example 900.")

    @property
    def limits(self) -> dict[Window, int]:
        """Nano-dollars of each window that has a limit."""
        given = zip(Window, (self.per_hour, self.per_day, self.per_month), strict=True)
        return {window: parse_money(text) for window, text in given if text is not None}


class SpentStatus(Model):
    """What of a budget is spent, in US dollars; only the windows that have a limit."""

    per_hour: str | None = Field(None, max_length=32, description="In this calendar hour.")
    per_day: str | None = Field(None, max_length=32, description="On this calendar day.")
    per_month: str | None = Field(None, max_length=32, description="In this calendar month.")
    left: str | None = Field(
        None, max_length=32, description="What the window with the least room has left."
    )

    @classmethod
    def of(cls, spent: Mapping[Window, int], limits: Mapping[Window, int]) -> "SpentStatus":
        """Return the amounts as text, to the cent.

        :param spent: nano-dollars, of each window that has a limit.
        :param limits: nano-dollars.
        """
        left = min((max(0, limit - spent.get(w, 0)) for w, limit in limits.items()), default=0)
        texts = {window: format_money(nano, 2) for window, nano in spent.items()}
        return cls(
            per_hour=texts.get(Window.HOUR),
            per_day=texts.get(Window.DAY),
            per_month=texts.get(Window.MONTH),
            left=format_money(left, 2),
        )
