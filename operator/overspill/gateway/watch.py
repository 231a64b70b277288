"""Feeds the state from the API server: services, providers, replicas, keys.

Each collection is followed by a watch of its own that heals itself; while the API server is
away the gateway goes on with what it knows. A provider's Secret is read by name.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from overspill.api.names import LABEL_KEY, LABEL_SERVICE, LABEL_SLICE_OF
from overspill.api.provider import InferenceProvider
from overspill.cluster.client import Cluster
from overspill.cluster.errors import ClusterError, Forbidden
from overspill.cluster.kinds import (
    ENDPOINT_SLICE,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    SECRET,
    Kind,
)
from overspill.gateway.secret import read_secret
from overspill.gateway.settings import Settings
from overspill.gateway.share import Share
from overspill.gateway.state import State, endpoints_of

log = structlog.get_logger(__name__)

Object = dict[str, Any]
RETRY_SECONDS = 5.0  # between two looks at a Secret that may not be read


class Feeder:
    """Keeps a state up to date."""

    def __init__(self, cluster: Cluster, state: State, settings: Settings) -> None:
        self._cluster, self._state, self._settings = cluster, state, settings
        self._namespaces = settings.watch_namespaces or ("",)
        self._key_namespace = settings.release_namespace
        self._peers: dict[str, frozenset[str]] = {}  # uids of gateways by EndpointSlice
        self._unsynced: set[str] = set()
        self._secrets: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed = False  # a watch has ended, which none should ever do
        self._on_provider: Callable[[], None] = _nothing
        self._on_failure: Callable[[], None] = _nothing

    @property
    def synced(self) -> bool:
        """Whether every collection was read once."""
        return not self._unsynced

    def start(self, on_provider: Callable[[], None], on_failure: Callable[[], None]) -> None:
        """Follow everything, until ``close``.

        :param on_provider: called when a provider's readiness may have changed.
        :param on_failure: called when a watch has ended.
        """
        state = self._state
        self._on_provider, self._on_failure = on_provider, on_failure
        for namespace in self._namespaces:
            self._follow(
                INFERENCE_PROVIDER, namespace, "", self._put_provider,
                self._remove_provider, self._replace_providers,
            )  # fmt: skip
            self._follow(
                INFERENCE_SERVICE, namespace, "", state.put_service,
                lambda raw: state.remove_service(_key(raw)), state.replace_services,
            )  # fmt: skip
            self._follow(
                INFERENCE_RUNTIME, namespace, "", state.put_runtime,
                lambda raw: state.remove_runtime(_key(raw)), state.replace_runtimes,
            )  # fmt: skip
            self._follow(
                ENDPOINT_SLICE, namespace, LABEL_SERVICE, state.put_slice,
                state.remove_slice, state.replace_slices,
            )  # fmt: skip
        self._follow(
            SECRET, self._key_namespace, f"{LABEL_KEY}=true", self._put_key,
            self._remove_key, self._replace_keys,
        )  # fmt: skip
        peers = f"{LABEL_SLICE_OF}={self._settings.internal_service}"
        self._follow(
            ENDPOINT_SLICE, self._key_namespace, peers, self._put_peers,
            self._remove_peers, self._replace_peers,
        )  # fmt: skip

    async def close(self) -> None:
        """End all watches."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            log.error("a watch ended", exc_info=task.exception())
            self.failed = True
            self._on_failure()

    def _follow(
        self,
        kind: Kind,
        namespace: str,
        labels: str,
        put: Callable[[Object], None],
        remove: Callable[[Object], None],
        replace: Callable[[list[Object], str], None],
    ) -> None:
        what = f"{kind.plural}/{namespace}/{labels}"
        self._unsynced.add(what)

        async def follow() -> None:
            async for event in self._cluster.watch(kind, namespace, labels=labels):
                try:
                    if event.type == "SYNC":
                        replace(event.items, namespace)
                        self._unsynced.discard(what)
                    else:
                        (remove if event.type == "DELETED" else put)(event.obj)
                except (KeyError, TypeError, ValueError, LookupError):
                    # One strange object must not stop the others; the next list heals it.
                    log.exception("event not understood", kind=kind.kind, type=event.type)

        self._spawn(follow())

    # clients' keys

    def _replace_keys(self, items: list[Object], _: str) -> None:
        self._state.keys.replace(items)
        self._state.generation += 1

    def _put_key(self, raw: Object) -> None:
        self._state.keys.put(raw)
        self._state.generation += 1

    def _remove_key(self, raw: Object) -> None:
        self._state.keys.remove(raw)
        self._state.generation += 1

    # the other gateways

    def _replace_peers(self, items: list[Object], _: str) -> None:
        self._peers = {raw["metadata"]["name"]: gateways_of(raw) for raw in items}
        self._divide()

    def _put_peers(self, raw: Object) -> None:
        self._peers[raw["metadata"]["name"]] = gateways_of(raw)
        self._divide()

    def _remove_peers(self, raw: Object) -> None:
        self._peers.pop(raw["metadata"]["name"], None)
        self._divide()

    def _divide(self) -> None:
        others = frozenset[str]().union(*self._peers.values())
        self._state.set_share(Share.among(self._settings.instance, others))

    # providers and their keys

    def _put_provider(self, raw: Object) -> None:
        self._state.put_provider(raw)
        key = _key(raw)
        provider = self._state.providers.get(key)
        if provider is None:
            return
        spec = provider.resource.spec
        source = f"{spec.secret_ref.name}/{spec.secret_ref.key}/{spec.url}"
        known = self._secrets.get(key)
        if known is not None and known[0] == source:
            return
        if known is not None:
            known[1].cancel()
        self._state.set_secret(key, "", "SecretNotFound", "the Secret was not read yet")
        task = self._spawn(self._follow_secret(provider.resource))
        self._secrets[key] = (source, task)

    def _remove_provider(self, raw: Object) -> None:
        self._forget_provider(_key(raw))

    def _replace_providers(self, items: list[Object], namespace: str) -> None:
        for raw in items:
            self._put_provider(raw)
        self._state.replace_providers(items, namespace)
        for key in [k for k in self._secrets if k not in self._state.providers]:
            self._forget_provider(key)

    def _forget_provider(self, key: str) -> None:
        self._state.remove_provider(key)
        known = self._secrets.pop(key, None)
        if known is not None:
            known[1].cancel()
        self._on_provider()

    async def _follow_secret(self, provider: InferenceProvider) -> None:
        """Follow the Secret of one provider by its name."""
        namespace, name = provider.metadata.namespace, provider.spec.secret_ref.name
        only = f"metadata.name={name}"
        while True:
            try:
                await self._cluster.list(SECRET, namespace, fields=only)
                break
            except Forbidden:
                account = f"{self._key_namespace}:{self._settings.service_account}"
                self._tell(provider, "", "SecretForbidden", grant_command(namespace, name, account))
            except ClusterError as error:
                log.warning("secret not read", provider=provider.key, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        async for event in self._cluster.watch(SECRET, namespace, fields=only):
            gone = event.type == "DELETED" or (event.type == "SYNC" and not event.items)
            secret = None if gone else (event.items or [event.obj])[0]
            self._tell(provider, *read_secret(provider, secret))

    def _tell(self, provider: InferenceProvider, secret: str, reason: str, message: str) -> None:
        known = self._state.providers.get(provider.key)
        changed = known is not None and (known.reason, known.message) != (reason, message)
        self._state.set_secret(provider.key, secret, reason, message)
        if changed:
            log.info("provider key", provider=provider.key, reason=reason, message=message)
            self._on_provider()


def gateways_of(raw: Object) -> frozenset[str]:
    """Return the uids of the gateways in an EndpointSlice that may have requests at engines.

    One that is leaving has, until its streams have ended; one that is not ready gets none.
    """
    return frozenset(e.uid for e in endpoints_of(raw) if e.ready or e.terminating)


def grant_command(namespace: str, name: str, account: str) -> str:
    """Return the commands that let the gateway read one Secret.

    :param account: ``namespace:name`` of the gateway's service account.
    """
    role = f"overspill-read-{name}"
    return (
        f"kubectl create role {role} -n {namespace} --verb=list,watch --resource=secrets "
        f"--resource-name={name} && kubectl create rolebinding {role} -n {namespace} "
        f"--role={role} --serviceaccount={account}"
    )


def _nothing() -> None:
    """Nobody listens yet."""


def _key(raw: Object) -> str:
    return f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
