"""An event loop on a clock that jumps, with real sockets.

Whole programs that talk over 127.0.0.1 within this process run through hours in minutes, and
results do not depend on the machine: as long as there is something to read or to write, time stands
still. The kernel hands over what is sent on loopback within the call, or rarely a moment later: the
clock may then have jumped, by as much as the next timer was away.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Clock(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Moves on to the next timer when no socket has anything."""

    now = 0.0  # seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return at once.

        :raises RuntimeError: when nothing would ever happen again.
        """
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if events:
            return events
        if timeout is None:
            raise RuntimeError("nothing is left to wait for")
        self.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on that clock. What would run in a thread runs here, in no time."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        """Return virtual seconds."""
        return self.clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Call a function now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # for whoever awaits it, as from a thread
            future.set_exception(error)
        return future
