"""Keeps the treasury: what the gateways state comes in, is written down, and is answered.

The record is one ConfigMap of the release, which the chart makes. It is written before a grant is
handed out, in the version that was read, so that of two operators only one can grant. Without it
nothing is granted: providers get nothing, and what is local goes on. Written at most once a second
(twice while a request waits for money), and not at all while nothing is spent.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import aiohttp
import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from overspill.api.budget import Window
from overspill.api.values import NANO
from overspill.autoscaler.gateways import CONNECT, bearer
from overspill.cluster import Cluster, ClusterError, Conflict, Invalid, NotFound, backoff
from overspill.cluster.kinds import CONFIG_MAP
from overspill.controller.facts import Budget, Object
from overspill.ledger.gauges import gauges
from overspill.ledger.messages import Grants, Limits, Statement
from overspill.ledger.treasury import RECORD, BadRecord, Treasury
from overspill.ledger.windows import bounds

log = structlog.get_logger(__name__)

MAX_RECORD = 900_000  # bytes; a ConfigMap takes 1 MiB
SPACING, URGENT_SPACING = 1.0, 0.5  # seconds between two writes
WRITE_SECONDS = 5.0  # longest that gateways wait for one
SEND_SECONDS = 2.0  # for one answer
SILENT_SECONDS = 600.0  # without a word after which a holder will not come back

Shown = dict[tuple[str, Window], tuple[bool, str]]  # account and window: full, dollars spent
_NEW = (False, "0.00")


class Treasurer(Collector):
    """Gives out money, while this process is the leader."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        token_file: Path | None,
        on_change: Callable[[str, bool], None] = lambda account, urgent: None,
    ) -> None:
        """Make one; ``run`` runs it.

        :param cluster: writes only while we hold the lease.
        :param name: of the ConfigMap.
        :param token_file: the operator's token for the gateways.
        :param on_change: called with an account that has spent; urgent: or that is refused, or no
            longer.
        """
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._token_file, self._on_change = token_file, on_change
        self._treasury = Treasury()
        self._live: Object | None = None  # the ConfigMap as we know it; None: to be read
        self._heard: dict[str, tuple[str, Statement]] = {}  # by holder: address and statement
        self._voices: dict[str, float] = {}  # by holder: when heard last, monotonic seconds
        self._said = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}  # by address
        self._wrote = float("-inf")
        self._shown: Shown = {}
        self._running, self._refusing = False, False  # the last write failed
        self.problem = "the ledger was not read yet"  # why nothing can be given out, "" if it can

    # What the gateways' streams tell.

    def hear(self, address: str, statement: Statement) -> None:
        """Take a gateway's statement; a later one of the same holder takes its place.

        :param address: ``host:port`` of the gateway's internal server.
        """
        self._heard[statement.holder] = (address, statement)
        self._said.set()

    # What the controller asks.

    def stand(self, account: str, limits: Limits, now: float) -> Budget | None:
        """Return how an account's budget stands; None until the record was read.

        :param now: seconds since the epoch.
        """
        if self._live is None and self._treasury.revision == 0:
            return None
        pots = {window: self._treasury.pot(account, window, now) for window in limits}
        full = [window for window, pot in pots.items() if pot.full_for(limits[window])]
        return Budget(
            spent={window: pot.spent for window, pot in pots.items()},
            full=full[-1] if full else None,
            ends=bounds(full[-1], now)[1] if full else 0.0,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, read from the treasury now."""
        writable = not self.problem if self._running else None
        yield from gauges(self._treasury, time.time(), writable)

    # The loop.

    async def run(self) -> None:
        """Give out money until cancelled; only while this process is the leader."""
        self._live, failures = None, 0  # another leader may have written
        self._voices.clear()  # of an earlier run: they have spoken to another leader since
        self._running = True
        timeout = aiohttp.ClientTimeout(total=SEND_SECONDS, sock_connect=CONNECT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    failures = await self._step(session, failures)
            finally:
                self._running = False
                for task in self._sending.values():
                    task.cancel()
                await asyncio.gather(*self._sending.values(), return_exceptions=True)
                self._heard.clear()  # when we lead again, they may have ended

    async def _step(self, session: aiohttp.ClientSession, failures: int) -> int:
        """Do one round; return how many have failed in a row."""
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                if self._live is None:
                    await self._load()
            if not self._refusing:
                self.problem = ""
                await self._due()
            async with asyncio.timeout(WRITE_SECONDS):
                await self._round(session)
        except Conflict:
            self._live = None
            log.info("the ledger was changed by another; reading it again")
            await asyncio.sleep(backoff(failures + 1, first=0.1, longest=10.0))
            return failures + 1
        except (ClusterError, BadRecord, TimeoutError) as error:
            self._live, self._refusing = None, True
            self.problem = str(error) or f"no answer within {WRITE_SECONDS:g} s"
            log.warning("the ledger cannot be written; nothing spills", problem=self.problem)
            await asyncio.sleep(backoff(failures + 1, first=0.5, longest=10.0))
            return failures + 1
        self._refusing = False
        return 0

    async def _due(self) -> None:
        """Wait until a gateway has said something, and a write would not be one too many."""
        while not self._heard:
            await self._listen(None)
        while (wait := self._wrote + self._spacing() - time.monotonic()) > 0:
            await self._listen(wait)

    def _spacing(self) -> float:
        urgent = any(statement.urgent for _, statement in self._heard.values())
        return URGENT_SPACING if urgent else SPACING

    async def _listen(self, seconds: float | None) -> None:
        """Wait for the next statement, or the time."""
        self._said.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._said.wait()

    async def _round(self, session: aiohttp.ClientSession) -> None:
        heard = dict(self._heard)
        now = time.time()
        self._close_silent(heard)
        answers = [(a, self._treasury.hear(statement, now)) for a, statement in heard.values()]
        if self._treasury.changed or self._refusing:
            await self._save(now)
        self._heard = {h: said for h, said in self._heard.items() if said is not heard.get(h)}
        self._tell(now)
        for address, grants in answers:
            self._send(session, address, grants)

    def _close_silent(self, heard: Mapping[str, object]) -> None:
        """Let those go that were silent for so long that their process has ended."""
        moment = time.monotonic()
        self._voices = {h: self._voices.get(h, moment) for h in self._treasury.holders}
        self._voices |= dict.fromkeys(heard, moment)
        for holder, last in self._voices.items():
            if moment - last > SILENT_SECONDS:
                self._treasury.close(holder)

    # The record.

    async def _load(self) -> None:
        """Read the record; one that is older than what we know is written anew.

        :raises NotFound: when there is none, which only somebody who installs the chart mends.
        """
        try:
            live = await self._cluster.get(CONFIG_MAP, self._namespace, self._name)
        except NotFound as error:
            raise NotFound(
                f"ConfigMap {self._namespace}/{self._name} is gone; `helm upgrade` makes it anew"
            ) from error
        read = Treasury.read((live.get("data") or {}).get(RECORD, ""))
        if read.revision >= self._treasury.revision:
            self._treasury = read
        else:
            log.warning("the ledger is older than what was written; keeping what is known")
            self._treasury.changed = True
        self._live = live

    async def _save(self, now: float) -> None:
        """Write the record in the version that was read.

        :raises ClusterError: when it is not written; the next round reads it again.
        """
        text = self._treasury.record(now)
        if len(text) > MAX_RECORD:
            raise Invalid(f"the ledger has more accounts than fit into {MAX_RECORD} bytes")
        live = self._live or {}
        metadata = {k: v for k, v in live["metadata"].items() if k != "managedFields"}
        self._live = None  # unknown until the answer is there
        self._wrote = time.monotonic()
        self._live = await self._cluster.replace(
            CONFIG_MAP,
            {
                "apiVersion": CONFIG_MAP.api_version,
                "kind": CONFIG_MAP.kind,
                "metadata": metadata,
                "data": {RECORD: text},
            },
        )
        self._treasury.written()

    # The answers.

    def _send(self, session: aiohttp.ClientSession, address: str, grants: Grants) -> None:
        """Answer one gateway; while an answer is under way, the next statement gets the next."""
        if address in self._sending:
            return
        task = asyncio.create_task(self._post(session, address, grants))
        self._sending[address] = task
        task.add_done_callback(lambda _: self._sending.pop(address, None))

    async def _post(self, session: aiohttp.ClientSession, address: str, grants: Grants) -> None:
        url, body = f"http://{address}/ledger", grants.model_dump_json()
        try:
            headers = await asyncio.to_thread(bearer, self._token_file)
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    log.warning("grants refused", gateway=address, status=answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # It states what it wants again, as long as it lives.
            log.info("grants not delivered", gateway=address, problem=type(error).__name__)

    def _tell(self, now: float) -> None:
        """Tell of accounts that stand otherwise than the last time, to the cent."""
        shown: Shown = {
            (account, window): (pot.full_for(pot.limit), f"{pot.spent / NANO:.2f}")
            for account, window, pot in self._treasury.current(now)
        }
        before, self._shown = self._shown, shown
        for key in shown.keys() | before.keys():
            (full, spent), (was_full, was_spent) = shown.get(key, _NEW), before.get(key, _NEW)
            if full != was_full or spent != was_spent:
                self._on_change(key[0], full != was_full)
