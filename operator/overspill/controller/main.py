"""The operator process: wires the parts together and runs them until it is told to stop."""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import REGISTRY

from overspill import logs
from overspill.api.crd import RESOURCES
from overspill.api.names import API_VERSION
from overspill.autoscaler import loop as autoscaler_loop
from overspill.autoscaler.loop import Autoscaler
from overspill.cluster import Cluster, ClusterError, Kind, Leader, Unavailable, backoff
from overspill.controller import endpoints, handlers
from overspill.controller.addresses import Addresses
from overspill.controller.announce import Announcer
from overspill.controller.audit import Auditor
from overspill.controller.catalog import Catalog, Key
from overspill.controller.metrics import Metrics
from overspill.controller.nudge import Nudger
from overspill.controller.observe import Observer
from overspill.controller.reconcile import Reconciler
from overspill.controller.scaling import ScaleWriter
from overspill.controller.settings import Settings, SettingsError
from overspill.controller.status import NUMBERS_SECONDS
from overspill.controller.targets import Targets
from overspill.controller.treasurer import Treasurer
from overspill.controller.views import Views
from overspill.controller.worker import DirtyKeys, Worker
from overspill.prometheus.client import Credentials, PrometheusClient

log = structlog.get_logger(__name__)

STALL_SECONDS = 60.0
STEADY_SECONDS = 60.0  # a part that ran for so long had recovered from what ended the last


@dataclass
class Operator:
    """The parts of one operator process."""

    settings: Settings
    cluster: Cluster
    leader: Leader
    worker: Worker
    autoscaler: Autoscaler
    treasurer: Treasurer
    nudger: Nudger
    auditor: Auditor
    addresses: Addresses
    sink: handlers.Sink
    watching: threading.Event
    targets: Targets
    prometheus: PrometheusClient

    def fault(self) -> str:
        """Return what has stalled, "" when nothing has."""
        now = time.monotonic()
        if self.worker.stalled(now, STALL_SECONDS):
            return "a reconcile hangs"
        if self.leader.held(now) and self.autoscaler.age() > STALL_SECONDS:
            return "the autoscaler's loop hangs"
        return ""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop``; the lease is given back when nothing writes any more."""
        election = asyncio.create_task(self.leader.run())
        work: list[Coroutine[Any, Any, None]] = [
            self.worker.run(),
            self._while_leading(self.autoscaler.run, "autoscaler"),
            self._while_leading(self.treasurer.run, "treasurer"),
            self.nudger.run(),
            self.auditor.run(),
            self.addresses.run(),
            handlers.follow(self.sink, self.cluster, self.settings.watch_namespaces),
            handlers.watch(self.sink, self.settings.watch_namespaces, self.watching),
        ]
        tasks = [asyncio.create_task(part) for part in work]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait(
                [election, stopping, *tasks], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()  # raises what ended it
        finally:
            await _cancel([stopping, *tasks])
            await _cancel([election])
            self.prometheus.close()

    async def _while_leading(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a part while we hold the lease."""
        failures = 0
        while True:
            await self.leader.wait(held=True)
            started = time.monotonic()
            loop = asyncio.create_task(run())
            lost = asyncio.create_task(self.leader.wait(held=False))
            try:
                await asyncio.wait([loop, lost], return_when=asyncio.FIRST_COMPLETED)
                if loop.done() and loop.exception():
                    steady = time.monotonic() - started >= STEADY_SECONDS
                    failures = 1 if steady else failures + 1
                    log.error("a part ended", part=name, exc_info=loop.exception())
                    await asyncio.sleep(backoff(failures))
            finally:
                await _cancel([loop, lost])


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_crds(cluster: Cluster) -> tuple[int, int]:
    """Wait until our kinds are served; return the API server's version."""
    failures = 0
    wanted = {resource.plural for resource in RESOURCES}
    while True:
        try:
            found = await cluster.resources(API_VERSION)
            if wanted <= found:
                return await cluster.version()
            problem = f"no CRDs of {API_VERSION}; install them with `overspill crds apply`"
        except ClusterError as error:
            problem = str(error)
        failures += 1
        log.warning("waiting for the API server", problem=problem)
        await asyncio.sleep(backoff(failures, longest=10.0))


def build(settings: Settings, cluster: Cluster, version: tuple[int, int]) -> Operator:
    """Wire the parts."""
    metrics = Metrics(REGISTRY)
    leader = Leader(cluster, settings.namespace, settings.lease, settings.identity)
    metrics.leader.set_function(lambda: float(leader.held(time.monotonic())))

    def guard(verb: str, kind: Kind) -> None:
        leader.check()
        metrics.wrote(verb, kind)

    guarded = cluster.guarded(guard)
    keys, catalog, views = DirtyKeys(), Catalog(), Views()
    addresses = Addresses(cluster, settings.namespace, f"{settings.gateway_service}-internal")
    scale = ScaleWriter(guarded)
    folder = settings.prometheus_credentials
    prometheus = PrometheusClient(
        settings.prometheus_url, credentials=Credentials(folder) if folder else None
    )
    treasurer = _treasurer(settings, guarded, keys, catalog)
    autoscaler = Autoscaler(
        prometheus,
        addresses,
        _token(settings),
        scale,
        settings=autoscaler_loop.Settings(
            settings.interval,
            settings.up_window,
            settings.down_window,
            settings.recording_rules,
        ),
        on_change=lambda path: keys.mark([Key.service(*path.split("/"))]),
        on_statement=treasurer.hear,
    )
    observer = Observer(cluster, autoscaler, treasurer, catalog, version, views)
    announcer = Announcer(guarded, settings.identity)
    reconciler = Reconciler(guarded, observer, autoscaler, scale, announcer, settings, metrics)

    async def leading() -> None:
        await leader.wait(held=True)

    auditor = Auditor(cluster, catalog, keys, views, settings.watch_namespaces, leading)

    async def informed() -> None:
        await leading()
        await auditor.begun()

    return Operator(
        settings=settings,
        cluster=cluster,
        leader=leader,
        worker=Worker(keys, reconciler.reconcile, informed, metrics),
        autoscaler=autoscaler,
        treasurer=treasurer,
        nudger=Nudger(autoscaler, catalog, keys),
        auditor=auditor,
        addresses=addresses,
        sink=handlers.Sink(keys, catalog, views),
        watching=threading.Event(),
        targets=_targets(cluster, settings),
        prometheus=prometheus,
    )


def _treasurer(
    settings: Settings, cluster: Cluster, keys: DirtyKeys, catalog: Catalog
) -> Treasurer:
    """Return the treasurer, whose news are told at once or with the next numbers."""

    def on_change(account: str, urgent: bool) -> None:
        keys.mark(catalog.concerned(account), 0.0 if urgent else NUMBERS_SECONDS)

    treasurer = Treasurer(
        cluster, settings.namespace, settings.ledger, _token(settings), on_change=on_change
    )
    REGISTRY.register(treasurer)
    return treasurer


def _token(settings: Settings) -> Path | None:
    """Return the file of the operator's token for the gateways, where there is one."""
    token = Path(settings.token_file)
    return token if token.exists() else None


def _targets(cluster: Cluster, settings: Settings) -> Targets:
    """Return what to scrape: the services' pods, and our own."""
    watched = settings.watch_namespaces
    return Targets(cluster, tuple({*watched, settings.namespace}) if watched else ())


async def operate(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    operator: Operator | None = None

    async def targets() -> list[dict[str, Any]]:
        if operator is None:
            raise Unavailable("not connected to the API server yet")
        return await operator.targets()

    server = await endpoints.serve(
        settings.metrics_port,
        REGISTRY,
        fault=lambda: operator.fault() if operator else "",
        ready=lambda: operator is not None and operator.watching.is_set(),
        targets=targets,
    )
    try:
        async with Cluster.connect() as cluster:
            version = asyncio.create_task(wait_for_crds(cluster))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([version, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                operator = build(settings, cluster, version.result())
                await operator.run(stop)
            await _cancel([version, stopping])
    finally:
        await server.cleanup()


def run() -> None:
    """Entry point of ``overspill-operator``."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"overspill-operator: {error}")
    logs.configure(settings.log_level)
    # kopf's warning that signals are not its business, in a thread, is no news.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    try:
        asyncio.run(operate(settings))
    except ClusterError as error:
        sys.exit(f"overspill-operator: {error}")
