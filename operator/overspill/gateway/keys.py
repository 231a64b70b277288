"""Who asks: the client's API key, found by the SHA-256 digest that its Secret holds.

The gateway never knows a key that nobody sent. Looking up a digest in a hash table leaks
nothing useful by its timing: a caller cannot choose digests. Deny by default.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from overspill.api.keys import ClientKey, InvalidKey, parse_key
from overspill.gateway.errors import ApiError

log = structlog.get_logger(__name__)

MAX_KEY = 512  # bytes; longer ones are not even hashed


class KeyIndex:
    """All client keys of the release namespace.

    :param now: seconds since the epoch; a key that was replaced ends by the calendar.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._by_secret: dict[str, ClientKey] = {}
        self._by_digest: dict[str, ClientKey] = {}

    def replace(self, secrets: Iterable[dict[str, Any]]) -> None:
        """Know exactly these Secrets."""
        self._by_secret = {}
        for secret in secrets:
            self._put(secret)
        self._index()

    def put(self, secret: dict[str, Any]) -> None:
        """Add or change one; a Secret that is no sound key is refused and forgotten."""
        self._by_secret.pop(_name(secret), None)
        self._put(secret)
        self._index()

    def remove(self, secret: dict[str, Any]) -> None:
        """Forget one."""
        self._by_secret.pop(_name(secret), None)
        self._index()

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._by_secret

    def find(self, plaintext: bytes) -> ClientKey | None:
        """Return the key whose digest this is, or was until it was rotated and for a while."""
        if not 0 < len(plaintext) <= MAX_KEY:
            return None
        found = hashlib.sha256(plaintext).hexdigest()
        key = self._by_digest.get(found)
        if key is None or key.digest == found:
            return key
        return key if self._now() < key.previous_until else None

    def _put(self, secret: dict[str, Any]) -> None:
        try:
            self._by_secret[_name(secret)] = parse_key(secret)
        except InvalidKey as error:
            log.warning("client key refused", secret=_name(secret), error=str(error))

    def _index(self) -> None:
        keys = self._by_secret.values()
        self._by_digest = {key.previous: key for key in keys if key.previous}
        self._by_digest |= {key.digest: key for key in keys}


def authenticate(index: KeyIndex, authorization: bytes, api_key: bytes) -> ClientKey:
    """Return the caller's key.

    :param authorization: the Authorization header.
    :param api_key: the x-api-key header, for paths where a proxy takes the first one.
    :raises ApiError: 401 when there is no key, or none that we know.
    """
    scheme, _, token = authorization.partition(b" ")
    plaintext = token.strip() if scheme.lower() == b"bearer" else b""
    key = index.find(plaintext or api_key.strip())
    if key is None:
        raise ApiError(
            401,
            "invalid_api_key",
            "Send a key that this gateway knows as 'Authorization: Bearer osk-…' or as "
            "'x-api-key'; `overspill keys create` makes one.",
            headers=((b"www-authenticate", b"Bearer"),),
        )
    return key


def _name(secret: dict[str, Any]) -> str:
    return str(secret["metadata"]["name"])
