"""The only way to Prometheus: instant queries, bounded in time, off the event loop.

``prometheus-api-client`` is synchronous, so each query runs in a thread of a small pool. A query
that Prometheus does not answer holds its thread until the socket times out; its caller waits no
longer than the same time.

A private authority that signs Prometheus' certificate is trusted by ``REQUESTS_CA_BUNDLE``, a file
(https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification).
"""

import asyncio
import re
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_api_client import PrometheusApiClientException, PrometheusConnect

from overspill.prometheus.samples import Samples, parse

TIMEOUT = 5.0  # seconds for one query
THREADS = 8  # queries at the same time; Prometheus runs 20 by default
MAX_ERROR = 200  # characters of an answer that are repeated in an error
# What reading anything else than an answer raises; json that nests deep ends the recursion.
_NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_BUSY = re.compile(r"HTTP Status Code (408|429|5\d\d)\b")
_STRANGER = re.compile(r"HTTP Status Code (401|403)\b")


class PrometheusUnavailable(Exception):
    """Prometheus gave no usable answer. ``retry``: whether asking again may help."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


class Credentials:
    """A folder with ``token``, or ``username`` and ``password``: a Secret as it is mounted.

    ``requests`` calls it for each query, so what is rotated counts at once.
    """

    def __init__(self, folder: Path) -> None:
        """Know the folder; nothing is read yet."""
        self._folder = folder

    def __call__(self, request: Any) -> Any:
        """Add the header.

        :raises PrometheusUnavailable: the folder holds neither.
        """
        request.headers["Authorization"] = self._header()
        return request

    def _header(self) -> str:
        token, user, password = map(self._read, ("token", "username", "password"))
        if token:
            return f"Bearer {token}"
        if user and password:
            return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
        text = "prometheus.credentialsSecret holds neither token nor username and password"
        raise PrometheusUnavailable(text, retry=False)

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text().strip()
        except FileNotFoundError:
            return ""


class PrometheusClient:
    """One Prometheus, or what speaks its query API (Thanos, Mimir, VictoriaMetrics)."""

    def __init__(
        self, url: str, timeout: float = TIMEOUT, credentials: Credentials | None = None
    ) -> None:
        """Make a client; nothing is sent yet.

        :param url: base URL, for example ``http://prometheus:9090``; empty when there is none.
        :param timeout: seconds for one query.
        :param credentials: shown with each query, before those of the URL.
        """
        self._timeout = timeout
        self._connect = (
            PrometheusConnect(url, retry=0, timeout=timeout, auth=credentials) if url else None
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self.name = _without_password(url)

    async def query(self, promql: str) -> Samples:
        """Run one instant query.

        :param promql: grouped by the service labels (see ``queries``).
        :return: one value per service; a service without a series is absent.
        :raises PrometheusUnavailable: no answer in time, an error, or an answer of another shape.
        """
        if self._connect is None:
            raise PrometheusUnavailable("no Prometheus is configured", retry=False)
        running = asyncio.get_running_loop().run_in_executor(
            self._threads, self._query, self._connect, promql
        )
        try:
            async with asyncio.timeout(self._timeout):  # wait_for can lose a cancellation
                return await running
        except TimeoutError:
            raise PrometheusUnavailable(
                f"{self.name} did not answer within {self._timeout:g} s", retry=True
            ) from None

    def _query(self, connect: PrometheusConnect, promql: str) -> Samples:
        try:
            return parse(connect.custom_query(promql, {"timeout": f"{self._timeout:g}"}))
        except PrometheusApiClientException as error:
            raise self._refusal(str(error)) from error
        except _NO_ANSWER as error:
            raise PrometheusUnavailable(
                f"{self.name} gives no usable answer: {type(error).__name__}", retry=False
            ) from error
        except OSError as error:  # requests' exceptions are OSErrors, some ValueErrors as well
            kind = type(error).__name__
            hint = "; is its authority in prometheus.caConfigMap?" if kind == "SSLError" else ""
            raise PrometheusUnavailable(
                f"{self.name} cannot be reached: {kind}{hint}", retry=True
            ) from error

    def _refusal(self, text: str) -> PrometheusUnavailable:
        """Tell an answer to the query from "not now"; the library's text has the status."""
        busy = _BUSY.match(text)
        if busy:
            return PrometheusUnavailable(f"{self.name} is not ready: HTTP {busy[1]}", retry=True)
        if stranger := _STRANGER.match(text):
            hint = "check prometheus.credentialsSecret"
            text = f"{self.name} does not let us in: HTTP {stranger[1]}; {hint}"
            return PrometheusUnavailable(text, retry=False)
        return PrometheusUnavailable(
            f"{self.name} refused the query: {text[:MAX_ERROR]}", retry=False
        )

    def close(self) -> None:
        """Give the threads and connections back without waiting for a running query."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._connect is not None:
            self._connect.close()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
