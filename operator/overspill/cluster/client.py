"""The only Kubernetes I/O of Overspill: plain dicts in and out, every call with a timeout.

Built on ``kubernetes.aio``, of which only the transport is used (configuration, TLS, tokens):
its typed models cost time on every object, and server-side apply takes plain JSON anyway.
Errors come as :mod:`overspill.cluster.errors`. Limits: no protobuf, no exec or port-forward.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from overspill import __version__
from overspill.cluster.decoding import loads
from overspill.cluster.errors import NotConfigured, NotFound, TimedOut, Unavailable, from_status
from overspill.cluster.kinds import TOKEN_REVIEW, Kind
from overspill.cluster.watching import Event, watch

Object = dict[str, Any]
Guard = Callable[[str, Kind], None]  # called with the verb before each write; raises to refuse it

CALL_SECONDS = 15.0  # one object
LIST_SECONDS = 60.0  # one page of a list
WATCH_SECONDS = 65.0  # a watch ends by itself after 60 s at most; a silent one is cut here
MAX_LINE = 16 * 1024 * 1024  # bytes of one watch event; aiohttp's own limit is 128 KiB
PAGE = 500  # objects per page of a list, as kubectl does

_TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_METADATA = {
    what: {"Accept": f"application/json;as={what};v=v1;g=meta.k8s.io"}
    for what in ("PartialObjectMetadata", "PartialObjectMetadataList")
}


@dataclass(frozen=True)
class Listing:
    """A consistent snapshot of a collection."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True)
class Answer:
    """An answer that is still coming; header names are in lower case."""

    status: int
    headers: dict[str, str]
    chunks: AsyncIterator[bytes]


class Cluster:
    """A connection to one API server."""

    def __init__(self, api: Any, guard: Guard | None = None) -> None:
        """Wrap a ``kubernetes.aio`` ApiClient; use :meth:`connect` instead."""
        self._api = api
        self._guard = guard

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, context: str | None = None, kubeconfig: str | None = None
    ) -> AsyncIterator[Self]:
        """Open a connection; closed at the end of the ``async with`` block.

        The first that is there: ``kubeconfig``, $KUBECONFIG, the pod's service account,
        ``~/.kube/config``.

        :raises NotConfigured: when none of them is, or the context is not in the file.
        """
        api = kubernetes_client.ApiClient(await _configuration(context, kubeconfig))
        api.user_agent = f"overspill/{__version__}"
        try:
            yield cls(api)
        finally:
            await api.close()

    def guarded(self, guard: Guard) -> "Cluster":
        """Return the same connection, whose writes call ``guard`` first (lease check, counter)."""
        return Cluster(self._api, guard)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._api.configuration.host)

    async def version(self) -> tuple[int, int]:
        """Return the server's version, for example (1, 37)."""
        info = await self._call("GET", "/version")
        return int(info["major"]), int(info["minor"].rstrip("+"))

    async def resources(self, api_version: str) -> set[str]:
        """Return the plurals that are served of an API group, empty when the group is not.

        :param api_version: ``group/version``.
        """
        try:
            found = await self._call("GET", f"/apis/{api_version}")
        except NotFound:
            return set()
        return {resource["name"] for resource in found["resources"]}

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Read one object.

        :raises NotFound: when it does not exist.
        """
        return await self._call("GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> Listing:
        """Read a collection, page by page.

        :param namespace: empty means all namespaces.
        :param labels: label selector.
        :param fields: field selector.
        """
        items: list[Object] = []
        version = ""
        async for page in self._pages(kind, namespace, labels, fields):
            items += page.get("items") or []
            version = page["metadata"]["resourceVersion"]
        return Listing(items, version)

    async def scan(
        self, kind: Kind, namespace: str = "", *, labels: str = "", whole: bool = False
    ) -> AsyncIterator[Object]:
        """Read a collection object by object, with one page in memory.

        :param namespace: empty means all namespaces.
        :param labels: label selector.
        :param whole: else the objects' metadata only.
        """
        headers = {} if whole else _METADATA["PartialObjectMetadataList"]
        async for page in self._pages(kind, namespace, labels, "", headers):
            for item in page.get("items") or []:
                yield item

    async def _pages(
        self,
        kind: Kind,
        namespace: str,
        labels: str,
        fields: str,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self._call(
                "GET", kind.path(namespace), query, headers=headers, seconds=LIST_SECONDS
            )
            yield page
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    def watch(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Event]:
        """Follow a collection for ever; see :func:`overspill.cluster.watching.watch`."""

        async def snapshot() -> tuple[list[Object], str]:
            listing = await self.list(kind, namespace, labels=labels, fields=fields)
            return listing.items, listing.resource_version

        def lines(query: dict[str, str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            query |= {"labelSelector": labels, "fieldSelector": fields}
            return self._lines(kind.path(namespace), query)

        return watch(snapshot, lines, what=f"{kind.plural}.{namespace or '*'}")

    def follow(self, kind: Kind, namespace: str, *, labels: str) -> AsyncIterator[Event]:
        """Follow the metadata of a collection for ever, in little memory and without a list.

        Of the objects that are there it tells ADDED, each time that it begins anew.

        :param namespace: empty means all namespaces.
        :param labels: label selector.
        """

        def lines(query: dict[str, str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            headers = _METADATA["PartialObjectMetadata"]
            return self._lines(kind.path(namespace), query | {"labelSelector": labels}, headers)

        return watch(None, lines, what=f"{kind.plural}.{namespace or '*'}")

    async def apply(
        self,
        kind: Kind,
        obj: Object,
        *,
        manager: str,
        force: bool = True,
        subresource: str = "",
    ) -> Object:
        """Server-side apply.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/

        :param obj: the wanted fields; with ``metadata.resourceVersion`` only if still unchanged.
        :param manager: field manager.
        :param force: take fields that other managers own.
        :raises Conflict: when the resourceVersion is not the current one, or without ``force``
            another manager owns a field and wants it otherwise.
        """
        self._check("apply", kind)
        metadata = obj["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query, body=obj, headers=_APPLY)

    async def create(self, kind: Kind, obj: Object, *, manager: str = "overspill") -> Object:
        """Create an object.

        :raises Conflict: when it exists.
        """
        self._check("create", kind)
        path = kind.path(obj["metadata"].get("namespace", ""))
        return await self._call("POST", path, {"fieldManager": manager}, body=obj)

    async def replace(self, kind: Kind, obj: Object, *, manager: str = "overspill") -> Object:
        """Replace an object by one that was read before and changed.

        :raises Conflict: when somebody else changed it since.
        """
        self._check("update", kind)
        metadata = obj["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        return await self._call("PUT", path, {"fieldManager": manager}, body=obj)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete an object; its children follow in the background.

        :param uid: delete only this very object, not a later one of the same name.
        :raises NotFound: when it does not exist.
        """
        self._check("delete", kind)
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        await self._call("DELETE", kind.path(namespace, name), body=body)

    async def review_token(self, token: str, audience: str) -> str:
        """Return the user name that a token proves for an audience, "" when it proves none."""
        spec = {"token": token, "audiences": [audience]}
        body = {"apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind, "spec": spec}
        review = await self._call("POST", TOKEN_REVIEW.path(), body=body)
        status = review.get("status", {})
        if not status.get("authenticated") or audience not in status.get("audiences", []):
            return ""
        return str(status.get("user", {}).get("username", ""))

    async def raw(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> tuple[int, bytes]:
        """Send any request, for example through a service's proxy; no status is an error.

        :param path: URL path with its query.
        :param body: JSON values.
        :param seconds: for the whole call.
        """
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._open(method, path, body=body, headers=headers, timeout=timeout) as answer:
            return answer.status, await answer.read()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        idle: float = LIST_SECONDS,
    ) -> AsyncIterator["Answer"]:
        """Send any request and give its answer piece by piece; no status is an error.

        :param idle: seconds that the answer may be silent.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=idle)
        async with self._open(method, path, body=body, headers=headers, timeout=timeout) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            yield Answer(answer.status, headers, answer.content.iter_any())

    def _check(self, verb: str, kind: Kind) -> None:
        if self._guard:
            self._guard(verb, kind)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the transport keeps it
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; broken connections and timeouts become Unavailable."""
        try:
            _, url, sent, *_ = await self._api.param_serialize(
                method,
                path,
                query_params=[(k, v) for k, v in (query or {}).items() if v],
                header_params={"Accept": "application/json", **(headers or {})},
                auth_settings=["BearerToken"],
            )
            # The body is plain JSON values already: nothing to walk through and translate.
            answer = await self._api.call_api(method, url, sent, body, _request_timeout=timeout)
            async with answer.response as response:
                yield response
        except TimeoutError as error:
            raise TimedOut(f"{method} {path}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {error or type(error).__name__}") from error

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._open(
            method, path, query, body=body, headers=headers, timeout=timeout
        ) as answer:
            content = await answer.read()
            if answer.status >= 300:
                wait = answer.headers.get("Retry-After", "")
                raise from_status(answer.status, content, wait)
        return await _parse(content)

    @asynccontextmanager
    async def _lines(
        self, path: str, query: dict[str, str], headers: dict[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and give its lines."""
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS, sock_connect=CALL_SECONDS)
        async with self._open("GET", path, query, headers=headers, timeout=timeout) as answer:
            if answer.status >= 300:
                raise from_status(answer.status, await answer.read())
            yield _split(answer.content)


async def _split(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a watch, each holding one object of whatever size etcd keeps.

    :raises Unavailable: for a line that no API server sends.
    """
    try:
        while line := await content.readline(max_line_length=MAX_LINE):
            yield line
    except HttpProcessingError as error:
        raise Unavailable(f"a line of the watch exceeds {MAX_LINE} bytes") from error


async def _parse(content: bytes) -> Object:
    try:
        parsed = await loads(content)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"the answer is not JSON: {content[:100]!r}") from error
    if not isinstance(parsed, dict):
        raise Unavailable(f"the answer is not an object: {content[:100]!r}")
    return parsed


async def _configuration(context: str | None, kubeconfig: str | None) -> Any:
    """Return where the API server is and who we are."""
    configuration = kubernetes_client.Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG", "")
    try:
        inside = not path and not context and await asyncio.to_thread(_TOKEN_FILE.exists)
        if inside:
            kubernetes_config.load_incluster_config(configuration)
        else:
            await kubernetes_config.load_kube_config(
                path or None, context=context, client_configuration=configuration
            )
    except (kubernetes_config.ConfigException, OSError, ValueError) as error:
        raise NotConfigured(f"no cluster: {error}; set KUBECONFIG or pass a kubeconfig") from error
    # Left to itself aiohttp looks for a proxy and into ~/.netrc before each request, in threads,
    # and what it finds in the latter clashes with our token. A proxy is looked up here, once; in
    # a pod it leads out of the cluster, and the API server is inside.
    configuration.client_session_kwargs = {"trust_env": False}
    if not inside:
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
    return configuration


def _proxy(server: str) -> str | None:
    """Return the proxy that $HTTPS_PROXY, $HTTP_PROXY and $NO_PROXY ask for, None without one."""
    url = urlsplit(server)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)
