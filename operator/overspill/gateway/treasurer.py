"""Budgets of a gateway that runs alone: the operator's part of the ledger, in its process.

The record is one file of the objects' folder. As in a cluster it is written before money is handed
out, and without it nothing is: what has a budget does not spill. It is not touched before the
first request that needs money. Of several gateways with one folder the first keeps its record, and
the others get no money. What the last process had not given back is charged: it may be spent.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from overspill.gateway.demand import Demand
from overspill.gateway.funds import Funds
from overspill.ledger.gauges import gauges
from overspill.ledger.messages import Statement
from overspill.ledger.treasury import BadRecord, Treasury

log = structlog.get_logger(__name__)

NAME = "overspill.ledger"  # in the folder; no file of objects ends so
RETRY_SECONDS = 5.0  # after a fault of the record


class Record:
    """The file, and the right to write it, which is a lock on its folder.

    The lock ends with the process, however that ends:
    https://man7.org/linux/man-pages/man2/flock.2.html
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / NAME, -1

    def open(self) -> str:
        """Take the lock; return what was written last, "" when nothing ever was.

        :raises OSError: when another has it, or the file cannot be read.
        """
        if self._lock < 0:
            lock = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                text = f"another gateway keeps {self._path}; give each a folder of its own"
                raise BlockingIOError(text) from None
            self._lock = lock
        return self._path.read_text() if self._path.exists() else ""

    def write(self, text: str) -> None:
        """Replace the file, whole or not at all, also when the machine stops.

        :raises OSError: when that fails; the old one is still there.
        """
        fresh = self._path.with_suffix(".new")
        with open(fresh, "w", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        os.fsync(self._lock)

    def close(self) -> None:
        """Let another have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Treasurer(Collector):
    """Gives out money to this process alone.

    :param demand: tells what the process wants, has spent, and gives back.
    """

    def __init__(self, folder: Path, funds: Funds, demand: Demand) -> None:
        self._record, self._funds, self._demand = Record(folder), funds, demand
        self._treasury: Treasury | None = None
        self._rest_until = 0.0  # monotonic seconds
        self.problem = ""  # why nothing can be given out, "" if it can

    async def run(self) -> None:
        """Answer every statement until the demand's stop, whose last one gives all back."""
        try:
            async for statement in self._demand.statements():
                if time.monotonic() >= self._rest_until:
                    await self._answer(statement)
        finally:
            self._record.close()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, read from the treasury now."""
        yield from gauges(self._treasury or Treasury(), time.time(), not self.problem)

    async def _answer(self, statement: Statement) -> None:
        """Write down what follows from a statement, then hand it out."""
        try:
            if self._treasury is None:
                self._treasury = await asyncio.to_thread(self._read)
            treasury, now = self._treasury, time.time()
            grants = treasury.hear(statement, now)
            if treasury.changed:
                await asyncio.to_thread(self._record.write, treasury.record(now))
                treasury.written()
        except (OSError, BadRecord) as error:
            if str(error) != self.problem:
                log.warning("nothing with a budget spills", problem=str(error))
            self.problem, self._rest_until = str(error), time.monotonic() + RETRY_SECONDS
            return
        self.problem = ""
        self._funds.hear(grants)

    def _read(self) -> Treasury:
        """Return what the last process left; nobody else can be alive.

        :raises BadRecord: naming the file.
        :raises OSError: when it cannot be had.
        """
        text = self._record.open()
        try:
            treasury = Treasury.read(text)
        except BadRecord as error:
            raise BadRecord(f"{NAME}: {error}; without it budgets begin anew") from error
        for holder in treasury.holders:
            treasury.close(holder)
        return treasury
