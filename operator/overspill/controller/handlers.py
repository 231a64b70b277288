"""Events mark keys dirty, nothing else. Level, not edge.

kopf runs in a thread and an event loop of its own: when its watches fail for good it ends, with
every task of its loop, and is started again, while the workers go on. It posts no events, sets no
finalizers, writes no annotations; leader election is ours (:mod:`overspill.cluster.lease`).

Children and pods, of which there are ten times as many events, do not go through kopf, which makes
a task of each object: with a thousand new services it was behind by ten seconds, and edits with it.
They are followed by label on the server's side, as metadata alone: an event only says which service
to look at. A deletion that no watch tells is found by :mod:`overspill.controller.audit`.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kopf
import structlog

from overspill.api.names import GROUP, LABEL_SERVICE, VERSION
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.cluster import Cluster, Kind, backoff
from overspill.cluster.kinds import POD
from overspill.controller.catalog import Catalog, Key
from overspill.controller.observe import CHILDREN
from overspill.controller.sessions import login
from overspill.controller.views import CHILD_SELECTOR, Views
from overspill.controller.worker import DirtyKeys

log = structlog.get_logger(__name__)

# One change of ours comes back as a dozen events, of our own writes and of the controllers' that
# follow them; looked at together they cost one reconcile.
ECHO_SECONDS = 0.2
# What a person changed goes before what became due up to so many seconds earlier. Else an edit
# waits until all echoes of thousands of new services were looked at, minutes, and these become
# fewer by waiting; they wait no longer than this for a stream of changes without an end.
AHEAD_SECONDS = 600.0
SERVER_TIMEOUT = 60  # seconds after which the API server ends a watch
IDLE_SECONDS = 0.5  # after which what kopf keeps of an event, its object, is let go
STEADY_SECONDS = 60.0  # of watching, after which an end is the first of its kind
LONGEST_PAUSE = 15.0  # seconds between two starts
CLIENT_TIMEOUT = 65  # seconds after which we do, when it did not
FOLLOWED = (*CHILDREN.values(), POD)

Post = Callable[..., Any]  # runs a function in the workers' event loop


@dataclass
class Sink:
    """Where events end: the catalog and the dirty keys. Lives in the workers' event loop."""

    keys: DirtyKeys
    catalog: Catalog
    views: Views

    def service(self, raw: dict[str, Any], *, gone: bool) -> None:
        """A service was seen, changed or deleted."""
        key = Key.service(raw["metadata"]["namespace"], raw["metadata"]["name"])
        concerned = self.catalog.remove(key) if gone else self.catalog.put(raw)
        if not gone and self.views.knows(key, key.kind, raw["metadata"]):
            concerned.discard(key)  # a list, or an event that was overtaken
        judged = (raw.get("status") or {}).get("observedGeneration")
        echo = not gone and judged == raw["metadata"].get("generation")
        self.keys.mark(concerned, ECHO_SECONDS if echo else -AHEAD_SECONDS)

    def provider(self, namespace: str, name: str) -> None:
        """A provider was seen, changed or deleted."""
        key = Key.provider(namespace, name)
        self.keys.mark({key} | self.catalog.users(key))

    def runtime(self, namespace: str, name: str) -> None:
        """A runtime was seen, changed or deleted."""
        self.keys.mark(self.catalog.users(Key.runtime(namespace, name)))

    def child(self, kind: Kind, metadata: dict[str, Any], *, gone: bool) -> None:
        """A child or pod of a service was seen, changed or deleted."""
        key = Key.service(metadata["namespace"], metadata["labels"][LABEL_SERVICE])
        if gone or not self.views.knows(key, kind.kind, metadata):
            self.keys.mark([key], ECHO_SECONDS)


def registry(sink: Sink, post: Post) -> kopf.OperatorRegistry:
    """Return the handlers."""
    handlers = kopf.OperatorRegistry()

    kopf.on.login(registry=handlers)(login)

    @kopf.on.event(GROUP, VERSION, InferenceService.plural, registry=handlers)
    async def service_changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        post(lambda raw: sink.service(raw, gone=type == "DELETED"), dict(body))

    @kopf.on.event(GROUP, VERSION, InferenceProvider.plural, registry=handlers)
    async def provider_changed(meta: kopf.Meta, **_: Any) -> None:
        post(sink.provider, meta["namespace"], meta["name"])

    @kopf.on.event(GROUP, VERSION, InferenceRuntime.plural, registry=handlers)
    async def runtime_changed(meta: kopf.Meta, **_: Any) -> None:
        post(sink.runtime, meta["namespace"], meta["name"])

    return handlers


class NoMemory(kopf.DiffBaseStorage):
    """Keeps no last state of an object: we look at what is, never at what changed.

    kopf would copy each object whole, several times an event, to compare it with that state.
    """

    def build(self, *, body: kopf.Body, **_: Any) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return what was stored last: always nothing, so that nothing ever differs."""
        return kopf.BodyEssence()

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Write no annotation."""


def settings() -> kopf.OperatorSettings:
    """Set kopf up: quiet, patient with the API server, and never waiting on a silent watch."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.persistence.diffbase_storage = NoMemory()
    chosen.queueing.idle_timeout = IDLE_SECONDS
    chosen.scanning.disabled = True  # else it watches CRDs and namespaces of the whole cluster
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.client_timeout = CLIENT_TIMEOUT
    chosen.watching.inactivity_timeout = CLIENT_TIMEOUT
    chosen.watching.connect_timeout = 10
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    # Short, so that the end of an outage is seen at once; after the last one `watch` starts anew.
    chosen.networking.error_backoffs = (1, 1, 2, 3, 5, 5, 5, 5)
    return chosen


async def follow(sink: Sink, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Follow children and pods until cancelled.

    :param namespaces: empty means all.
    """
    async with asyncio.TaskGroup() as group:
        for namespace in namespaces or ("",):
            for kind in FOLLOWED:
                group.create_task(_follow(sink, cluster, kind, namespace))


async def _follow(sink: Sink, cluster: Cluster, kind: Kind, namespace: str) -> None:
    async for event in cluster.follow(kind, namespace, labels=CHILD_SELECTOR):
        sink.child(kind, event.obj["metadata"], gone=event.type == "DELETED")


async def watch(sink: Sink, namespaces: tuple[str, ...], ready: threading.Event) -> None:
    """Watch our own kinds until cancelled.

    :param namespaces: empty means all.
    :param ready: set when the watches have begun.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        stop, started = threading.Event(), loop.time()
        try:
            await asyncio.to_thread(
                kopf.run,
                registry=registry(sink, loop.call_soon_threadsafe),
                settings=settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
                ready_flag=ready,
            )
            problem = "kopf ended by itself"
        except Exception as error:
            # Whatever it was (an outage, a missing right): the workers' resync carries on.
            problem = f"{type(error).__name__}: {error}"
        finally:
            stop.set()
        failures = 1 if loop.time() - started > STEADY_SECONDS else failures + 1
        log.warning("watches ended", problem=problem, failures=failures)
        await asyncio.sleep(backoff(failures, longest=LONGEST_PAUSE))
