"""How providers are asked over HTTP, whatever their API: aiohttp, and what its failures mean.

The client's own headers are never forwarded. No redirect is followed, no cookie is used, and TLS
certificates are verified, those behind a proxy too.
"""

import asyncio
import math
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import orjson

from overspill.providers.base import (
    LONGEST_PAUSE,
    SHORTEST_PAUSE,
    Account,
    AnswerBroken,
    Fault,
    Fields,
    ProviderError,
    ProviderUnusable,
    RequestRefused,
)
from overspill.providers.proxy import Proxy

MAX_ERROR = 65_536  # bytes of an error answer that are read
MAX_MESSAGE = 500  # characters of it that a client gets to see
KEY_FAULT_PAUSE = 10.0  # seconds after a key was refused
# Errors with which nothing is charged. 502 and 504 come from a proxy in front of the provider,
# which may have computed an answer all the same.
NOT_BILLED = (500, 501, 503, 529)


class HttpAnswer:
    """A 2xx answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""
        return self._response.content_type == "text/event-stream"

    async def read(self, seconds: float) -> bytes:
        """Return the next piece, ``b""`` at the end.

        :raises AnswerBroken: when it ends before its end, or is silent.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._response.content.readany()
        except TimeoutError:
            raise AnswerBroken("the provider was silent for too long", Fault.TIMED_OUT) from None
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerBroken(
                f"the provider's answer broke off ({type(error).__name__})"
            ) from None

    def close(self) -> None:
        """End it; aiohttp keeps the connection only when the answer was read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Http:
    """The connections to all providers; one per event loop."""

    def __init__(self, proxy: Proxy | None = None, tls: ssl.SSLContext | bool = True) -> None:
        """Make a client; nothing is sent yet.

        :param proxy: on the way to https:// URLs.
        :param tls: whom to trust; True: the system's authorities ($SSL_CERT_FILE).
        """
        self._proxy, self._proxy_headers = proxy, None
        if proxy is not None and proxy.user:
            login = aiohttp.encode_basic_auth(proxy.user, proxy.password)
            self._proxy_headers = {"Proxy-Authorization": login}
        # How many there are is bounded for each provider, where requests are let go.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=tls)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={"User-Agent": "overspill"},
        )

    async def post(
        self,
        account: Account,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        patience: float,
    ) -> HttpAnswer:
        """POST a body and return once the head of the answer is there.

        :param path: below the account's base URL.
        :param body: JSON, or b"".
        :param headers: those that prove who asks, and the API's own.
        :param patience: seconds from the sent request to status and headers.
        :raises RequestRefused: for a fault of the request.
        :raises ProviderUnusable: for everything else that is not a 2xx.
        """
        sent = {"Content-Type": "application/json", **headers} if body else headers
        return await self._ask("POST", account, account.url + path, body, sent, patience)

    async def get(
        self, account: Account, url: str, headers: Mapping[str, str], patience: float
    ) -> HttpAnswer:
        """GET and return once the head of the answer is there; as ``post``.

        :param url: one that the account's key may be sent to.
        """
        return await self._ask("GET", account, url, None, headers, patience)

    async def _ask(
        self,
        method: str,
        account: Account,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        patience: float,
    ) -> HttpAnswer:
        response = await self._send(method, account, url, body, headers, patience)
        if response.status // 100 == 2:
            return HttpAnswer(response)
        try:
            raise await _fault(response, account.idle)
        finally:
            response.close()

    async def _send(
        self,
        method: str,
        account: Account,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        patience: float,
    ) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, connect=account.connect)
        try:
            async with asyncio.timeout(account.connect + patience):
                return await self._session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    **self._by_proxy(url),
                )
        except TimeoutError as error:
            sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
            message = "no answer in time"
            raise ProviderUnusable(Fault.TIMED_OUT, message, may_bill=sent) from None
        except aiohttp.ClientHttpProxyError as error:
            message = f"the proxy refused ({error.status})"
            raise ProviderUnusable(Fault.UNREACHABLE, message) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            name = type(error).__name__  # the text could hold the URL with its query
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            message = f"no connection ({name})"
            raise ProviderUnusable(Fault.UNREACHABLE, message, may_bill=sent) from None

    def _by_proxy(self, url: str) -> Fields:
        proxy = self._proxy
        if proxy is None or not proxy.serves(url):
            return {}
        return {"proxy": proxy.url, "proxy_headers": self._proxy_headers}

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()


async def _fault(response: aiohttp.ClientResponse, seconds: float) -> ProviderError:
    """Return what an error answer means; its text is passed on only for 400, 413 and 422."""
    status = response.status
    if status in (400, 413, 422):
        return RequestRefused(400 if status == 422 else status, await _message(response, seconds))
    if status in (401, 403):
        message = f"the API key was refused ({status})"
        return ProviderUnusable(Fault.KEY_REFUSED, message, KEY_FAULT_PAUSE)
    if status == 429 or status >= 500:
        fault = Fault.RATE_LIMITED if status == 429 else Fault.SERVER_ERROR
        pause = _pause(response.headers.get("Retry-After", ""), datetime.now(UTC))
        may_bill = status >= 500 and status not in NOT_BILLED
        return ProviderUnusable(
            fault, f"status {status}", pause or SHORTEST_PAUSE,
            told=pause is not None, may_bill=may_bill,
        )  # fmt: skip
    fault = Fault.MODEL_UNKNOWN if status == 404 else Fault.UNEXPECTED_ANSWER
    return ProviderUnusable(fault, f"status {status}")


async def _message(response: aiohttp.ClientResponse, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            answer = orjson.loads(await response.content.read(MAX_ERROR))
            error = answer["detail"] if "detail" in answer else answer["error"]  # RFC 9457's name
            text = error["message"] if isinstance(error, dict) else error
            return str(text)[:MAX_MESSAGE]
    except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError, KeyError, TypeError):
        return "the provider refused the request without a reason"


def _pause(retry_after: str, now: datetime) -> float | None:
    """Return seconds from a Retry-After header, between 1 and 60; None when it says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
            return None
    return None if math.isnan(seconds) else min(max(seconds, SHORTEST_PAUSE), LONGEST_PAUSE)
