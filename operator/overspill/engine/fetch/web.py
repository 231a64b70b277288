"""One HTTP request: redirects, timeouts, and what a status means.

The standard library's client, because a loader needs one connection per file and exact control of
where a credential goes: it is sent to the address asked for and to no other, so a redirect to
another origin is followed without it. Plain http is used only where the endpoint itself says so.
"""

import http.client
import re
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message

from overspill.engine.errors import ModelNotFound
from overspill.engine.fetch.errors import Interrupted, ModelForbidden, ModelSourceUnreachable

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # without a byte
MAX_REDIRECTS = 5
MAX_PAGE = 32 << 20  # bytes of a listing
MAX_RETRY_AFTER = 60.0  # seconds
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
# What servers call a fault, and nothing else that they write: it may repeat what we sent.
CODES = frozenset(
    {
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "EntryNotFound",
        "ExpiredToken",
        "GatedRepo",
        "InvalidAccessKeyId",
        "NoSuchBucket",
        "NoSuchKey",
        "PermanentRedirect",
        "RepoNotFound",
        "RequestTimeTooSkewed",
        "RevisionNotFound",
        "SignatureDoesNotMatch",
    }
)

Authorize = Callable[[str, str], Mapping[str, str]]  # method, URL → headers


class Refused(Exception):
    """An answer that is no success; `region` is where an S3 bucket says it lives."""

    def __init__(self, status: int, code: str, region: str, host: str) -> None:
        super().__init__(f"{host} answers HTTP {status}" + (f" ({code})" if code else ""))
        self.status = status
        self.region = region


class Web:
    """Sends requests."""

    def __init__(self, authorize: Authorize, authority: str = "") -> None:
        """Send with what `authorize` adds; `authority` are certificates to trust, in PEM."""
        self._authorize = authorize
        self._tls = ssl.create_default_context()
        if authority:
            try:
                self._tls.load_verify_locations(cadata=authority)
            except ssl.SSLError:
                message = "the Secret's ca.crt holds no certificate in PEM"
                raise ModelSourceUnreachable(message) from None

    @contextmanager
    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield the answer, after redirects, when it is a success or a 416.

        Raises Refused, Interrupted, ModelSourceUnreachable, ModelSecretRefused.
        """
        # Messages name the host that was asked: a redirect's is the server's own words.
        target, first, host = url, _origin(url), _host(url)
        for _ in range(MAX_REDIRECTS + 1):
            credential = self._authorize(method, target) if _origin(target) == first else {}
            with self._send(method, target, {**(headers or {}), **credential}, host) as response:
                if response.status not in REDIRECTS:
                    yield _accepted(response, host)
                    return
                target = _redirected(target, response.headers.get("Location", ""), host)
        raise ModelSourceUnreachable(f"{host} redirects more than {MAX_REDIRECTS} times")

    def page(self, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        """A whole small answer. Raises as `request`, and ModelSourceUnreachable when too long."""
        with self.request("GET", url, headers) as response, faults(_host(url)):
            body = response.read(MAX_PAGE + 1)
        if len(body) > MAX_PAGE:
            raise ModelSourceUnreachable(f"{_host(url)} lists more than {MAX_PAGE >> 20} MiB")
        return body

    @contextmanager
    def _send(
        self, method: str, url: str, headers: Mapping[str, str], shown: str
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urllib.parse.urlsplit(url)
        connection: http.client.HTTPConnection
        host = parts.hostname or ""
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=CONNECT_SECONDS, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with faults(shown):
                connection.connect()
                connection.sock.settimeout(STALL_SECONDS)
                connection.request(method, path, headers={"User-Agent": "overspill", **headers})
                response = connection.getresponse()
            yield response
        finally:
            connection.close()


@contextmanager
def faults(host: str) -> Iterator[None]:
    """Turn what goes wrong with a connection into Interrupted, in our own words."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ModelSourceUnreachable(
            f"the certificate of {host} is not trusted: {error.verify_message}; "
            "put its authority into the Secret's key ca.crt"
        ) from None
    except TimeoutError:
        raise Interrupted(f"{host} does not answer in time") from None
    except (OSError, http.client.HTTPException) as error:
        detail = getattr(error, "strerror", None) or type(error).__name__
        raise Interrupted(f"{host}: {detail}") from None


def explain(refused: Refused, what: str, *, anonymous: bool) -> Exception:
    """The fault that a refusal means for the model `what`."""
    text = f"{what}: {refused}"
    if refused.status in (404, 410):
        return ModelNotFound(f"{text}; check spec.model.uri")
    if refused.status in (401, 403):
        remedy = (
            "it may not exist, or name a Secret in model.secretRef"
            if anonymous
            else "check what the Secret of model.secretRef is allowed"
        )
        return ModelForbidden(f"{text}; {remedy}")
    return ModelSourceUnreachable(text)


def _accepted(response: http.client.HTTPResponse, host: str) -> http.client.HTTPResponse:
    if response.status in (200, 206, 416):
        return response
    if response.status in BUSY:
        wait = _retry_after(response.headers)
        raise Interrupted(f"{host} answers HTTP {response.status}", wait)
    with faults(host):
        body = response.read(64 * 1024).decode(errors="replace")
    told = re.search(r"<Code>([A-Za-z]+)</Code>", body)
    code = response.headers.get("X-Error-Code", "") or (told[1] if told else "")
    place = re.search(r"<Region>([a-z0-9-]{3,32})</Region>", body)
    region = response.headers.get("x-amz-bucket-region", "") or (place[1] if place else "")
    raise Refused(response.status, code if code in CODES else "", region, host)


def _redirected(url: str, location: str, host: str) -> str:
    target = urllib.parse.urljoin(url, location)
    try:
        parts = urllib.parse.urlsplit(target)
        usable = bool(location) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not target.isascii() or not target.isprintable() or "@" in parts.netloc:
        raise ModelSourceUnreachable(f"{host} redirects to what is no address")
    if parts.scheme != "https" and parts.scheme != urllib.parse.urlsplit(url).scheme:
        raise ModelSourceUnreachable(f"{host} redirects to something other than https")
    return target


def _retry_after(headers: Message) -> float:
    text = headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER) if text.isdecimal() and len(text) < 9 else 0.0


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc
