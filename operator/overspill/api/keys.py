"""Clients' keys: Secrets in the gateway's namespace that hold a digest, never the key itself.

::

    kind: Secret
    metadata: {name: key-team-a-ci, labels: {overspill.dev/key: "true"}}
    stringData: {sha256: <hex>, tenant: team-a, services: "team-a/*", priority: "0", weight: "1",
                 requestsPerMinute: "600", tokensPerMinute: "100000", budgetPerDay: "20"}

A key that was rotated has two more fields, ``previousSha256`` and ``previousUntil`` (RFC 3339): the
key before opens the same until then, as the same client.

A key has 256 random bits, so one plain SHA-256 is as hard to invert as any slow hash. A Secret
that cannot be read in full opens nothing: a limit that this version does not know must not be
ignored.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from overspill.api.identifiers import DNS_LABEL
from overspill.api.names import LABEL_KEY
from overspill.api.values import parse_money

PREFIX = "osk-"
FIELDS = (
    "sha256", "tenant", "services", "priority", "weight", "requestsPerMinute", "tokensPerMinute",
    "budgetPerDay", "previousSha256", "previousUntil",
)  # fmt: skip
LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
HEAVIEST = 1000
HIGHEST_LIMIT = 1_000_000_000  # requests or tokens per minute
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_NAMESPACE = re.compile(DNS_LABEL[1:-1])
_PATTERN = re.compile(r"([a-z0-9*][-a-z0-9*]*)/([a-z0-9*][-a-z0-9*]*)")


class InvalidKey(ValueError):
    """A Secret that is no key; the text names the field and the remedy. Changes only with it."""


@dataclass(frozen=True)
class ClientKey:
    """Who a client is and what it may use.

    :param id: name of the Secret, for logs and the ledger.
    :param digest: SHA-256 of the key, 64 hexadecimal digits.
    :param tenant: the namespace whose served names it uses without a prefix.
    :param services: patterns ``namespace/name``, in which ``*`` stands for any characters.
    :param priority: of its requests where some wait; higher ones are served first.
    :param weight: its share among keys of the same priority that wait.
    :param requests_per_minute: that it may send; None: no limit.
    :param tokens_per_minute: of prompts and answers; None: no limit.
    :param budget_per_day: nano-dollars that its requests may cost at providers on a calendar day
        (UTC); None: no limit.
    :param previous: digest of the key before, "" without one.
    :param previous_until: when it ends, in seconds since the epoch.
    """

    id: str
    digest: str
    tenant: str
    services: tuple[str, ...]
    priority: int = 0
    weight: int = 1
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_per_day: int | None = None
    previous: str = ""
    previous_until: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether it has a limit per minute."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    def allows(self, namespace: str, name: str) -> bool:
        """Whether the key opens that service."""
        return any(_matches(pattern, namespace, name) for pattern in self.services)


def _matches(pattern: str, namespace: str, name: str) -> bool:
    wanted_namespace, wanted_name = pattern.split("/")
    return _glob(wanted_namespace, namespace) and _glob(wanted_name, name)


def _glob(pattern: str, text: str) -> bool:
    """Match ``*`` only, without a regular expression of the user's making."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first):
        return False
    position = len(first)
    for part in rest:
        found = text.find(part, position, len(text) - len(last))
        if found < 0:
            return False
        position = found + len(part)
    return text.endswith(last)


def new_key() -> tuple[str, str]:
    """Return a new key and its digest."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """Return the SHA-256 of a key in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_secret(
    namespace: str,
    name: str,
    digest_: str,
    tenant: str,
    services: tuple[str, ...] = (),
    *,
    priority: int = 0,
    weight: int = 1,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    budget_per_day: str = "",
) -> dict[str, Any]:
    """Return the Secret of a key.

    :param namespace: the gateway's.
    :param services: patterns; empty means all of the tenant.
    :param priority: -100 to 100.
    :param weight: 1 to 1000.
    :param requests_per_minute: None means no limit; so do the other limits.
    :param budget_per_day: US dollars; empty means no limit.
    :raises InvalidKey: when a field is not what :func:`parse_key` accepts.
    """
    fields = {"sha256": digest_, "tenant": tenant, "services": ",".join(services)}
    # A gateway of an older version refuses a key with a field that it does not know.
    fields |= {"priority": str(priority or ""), "weight": "" if weight == 1 else str(weight)}
    limits = {"requestsPerMinute": requests_per_minute, "tokensPerMinute": tokens_per_minute}
    fields |= {field: "" if limit is None else str(limit) for field, limit in limits.items()}
    fields["budgetPerDay"] = budget_per_day
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_KEY: "true"}},
        "type": "Opaque",
        "data": _encoded(fields),
    }
    parse_key(secret)
    return secret


def rotated(secret: dict[str, Any], digest_: str, until: datetime | None) -> dict[str, Any]:
    """Return the Secret of a key with another key in it; all else stays, what it has spent too.

    :param until: the end of the key that it replaces; None: it ends now.
    :raises InvalidKey: when the Secret is none of a key.
    """
    parse_key(secret)
    kept = {k: v for k, v in secret["data"].items() if not k.startswith("previous")}
    fields = {"sha256": digest_}
    if until is not None:
        fields["previousUntil"] = until.isoformat(timespec="seconds")
        kept["previousSha256"] = kept["sha256"]
    changed = {**secret, "data": kept | _encoded(fields)}
    parse_key(changed)
    return changed


def parse_key(secret: dict[str, Any]) -> ClientKey:
    """Read a key's Secret.

    :param secret: as the API server gives it, values in base64.
    :raises InvalidKey: when a field is missing, wrong or unknown.
    """
    fields = {name: _decode(name, value) for name, value in (secret.get("data") or {}).items()}
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise InvalidKey(f"{', '.join(unknown)}: unknown; fields are {', '.join(FIELDS)}")
    digest_ = _digest(fields, "sha256")
    tenant = fields.get("tenant", "")
    if not _NAMESPACE.fullmatch(tenant) or len(tenant) > 63:
        raise InvalidKey("tenant: must be the name of a namespace")
    services = _services(fields.get("services") or f"{tenant}/*")
    return ClientKey(
        secret["metadata"]["name"],
        digest_,
        tenant,
        services,
        _whole(fields, "priority", 0, LOWEST_PRIORITY, HIGHEST_PRIORITY),
        _whole(fields, "weight", 1, 1, HEAVIEST),
        _limit(fields, "requestsPerMinute"),
        _limit(fields, "tokensPerMinute"),
        _budget(fields.get("budgetPerDay", "")),
        *_previous(fields),
    )


def _whole(fields: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = fields.get(name, str(default))
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidKey(f"{name}: must be a whole number from {low} to {high}")
    return int(text)


def _limit(fields: dict[str, str], name: str) -> int | None:
    return _whole(fields, name, 1, 1, HIGHEST_LIMIT) if fields.get(name) else None


def _budget(text: str) -> int | None:
    try:
        return parse_money(text) if text else None
    except ValueError as error:
        raise InvalidKey(f"budgetPerDay: {error}") from error


def _digest(fields: dict[str, str], name: str) -> str:
    if not _DIGEST.fullmatch(fields.get(name, "")):
        raise InvalidKey(f"{name}: must be the key's SHA-256 in 64 digits of 0-9a-f")
    return fields[name]


def _previous(fields: dict[str, str]) -> tuple[str, float]:
    """Return the key before and when it ends; both fields are there, or none."""
    if not fields.get("previousSha256") and not fields.get("previousUntil"):
        return "", 0.0
    found = _digest(fields, "previousSha256")
    try:
        until = datetime.fromisoformat(fields.get("previousUntil", ""))
        if until.tzinfo is None:
            raise ValueError("no zone")
    except ValueError as error:
        text = "previousUntil: must be a time with its zone, as 2026-12-01T09:00:00Z"
        raise InvalidKey(text) from error
    return found, until.timestamp()


def _encoded(fields: dict[str, str]) -> dict[str, str]:
    return {k: base64.b64encode(v.encode()).decode() for k, v in fields.items() if v}


def _decode(name: str, value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidKey(f"{name}: must be UTF-8 text in base64") from error


def _services(text: str) -> tuple[str, ...]:
    patterns = tuple(p.strip() for p in text.split(","))
    wrong = [p for p in patterns if not _PATTERN.fullmatch(p)]
    if wrong:
        raise InvalidKey("services: must be namespace/name patterns such as team-a/*, by commas")
    return patterns
