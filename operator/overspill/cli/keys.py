"""`overspill keys`: clients' keys, stored as digests in Secrets beside the gateway."""

from datetime import UTC, datetime, timedelta
from typing import Any

from overspill.api.keys import InvalidKey, key_secret, new_key, parse_key, rotated
from overspill.api.names import LABEL_KEY
from overspill.api.values import parse_duration
from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster, Conflict, NotFound
from overspill.cluster.kinds import SECRET

PREFIX = "key-"  # of the Secrets' names
LONGEST_OVERLAP = 720 * 3600.0  # seconds


def create(
    target: Target,
    name: str,
    tenant: str,
    services: tuple[str, ...],
    output: Output,
    *,
    priority: int = 0,
    weight: int = 1,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    budget_per_day: str = "",
) -> None:
    """Make a key, store its digest, print the key: the only time that it is shown.

    :param services: patterns ``namespace/name``; empty means all of the tenant.
    :param priority: of its requests where some wait; higher ones are served first.
    :param weight: its share among keys of the same priority that wait.
    :param requests_per_minute: None means no limit; so do the other limits.
    :param budget_per_day: US dollars; empty means no limit.
    :raises CommandError: when a key of that name exists, or a field is wrong.
    """
    key, digest = new_key()
    try:
        secret = key_secret(
            target.namespace, PREFIX + name, digest, tenant, services,
            priority=priority, weight=weight, requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute, budget_per_day=budget_per_day,
        )  # fmt: skip
    except InvalidKey as error:
        raise CommandError(f"--{error}", USAGE) from error
    connected(target, lambda cluster: _create(cluster, secret, name))
    if output is Output.JSON:
        made = {"name": name, "key": key, "tenant": tenant, "services": list(services)}
        show.as_json(made | {"priority": priority, "weight": weight})
    else:
        _print_once(key)


def _print_once(key: str) -> None:
    show.note("This key is shown once and stored nowhere:")
    show.line(key)


async def _create(cluster: Cluster, secret: dict[str, Any], name: str) -> None:
    try:
        await cluster.create(SECRET, secret)
    except Conflict as error:
        text = f"key {name} exists; choose another name, or `overspill keys revoke {name}` first"
        raise CommandError(text) from error


def list_keys(target: Target, output: Output) -> None:
    """Print who may use what. The keys themselves are stored nowhere."""
    secrets = connected(target, lambda cluster: _secrets(cluster, target.namespace))
    rows = [_row(secret) for secret in secrets]
    if output is Output.JSON:
        show.as_json(rows)
    else:
        columns = ["name", "tenant", "services", "priority", "weight", "rpm", "tpm", "created"]
        show.table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    for row in rows:
        if row["error"]:
            show.note(f"key {row['name']} opens nothing: {row['error']}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


async def _secrets(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return (await cluster.list(SECRET, namespace, labels=f"{LABEL_KEY}=true")).items


def _row(secret: dict[str, Any]) -> dict[str, Any]:
    metadata = secret["metadata"]
    row: dict[str, Any] = {
        "name": metadata["name"].removeprefix(PREFIX),
        "tenant": "",
        "services": [],
        "priority": 0,
        "weight": 1,
        "rpm": None,
        "tpm": None,
        "created": metadata.get("creationTimestamp", ""),
        "error": "",
    }
    try:
        key = parse_key(secret)
    except InvalidKey as error:
        return row | {"error": str(error)}
    return row | {
        "tenant": key.tenant,
        "services": list(key.services),
        "priority": key.priority,
        "weight": key.weight,
        "rpm": key.requests_per_minute,
        "tpm": key.tokens_per_minute,
    }


def rotate(target: Target, name: str, overlap: str, output: Output) -> None:
    """Put another key in the place of one, which goes on for a while; print the new one.

    :param overlap: how long both open the same, for example ``24h``.
    :raises CommandError: when there is no such key, or somebody changes it just now.
    """
    key, digest = new_key()
    seconds = _overlap(overlap)
    until = datetime.now(UTC) + timedelta(seconds=seconds) if seconds else None
    connected(target, lambda cluster: _rotate(cluster, target.namespace, name, digest, until))
    if output is Output.JSON:
        show.as_json({"name": name, "key": key, "previousUntil": until and until.isoformat()})
        return
    show.note(
        f"The key before is refused {f'from {until:%Y-%m-%d %H:%M} UTC on' if until else 'now'}."
    )
    _print_once(key)


def _overlap(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise CommandError(f"--overlap: {error}", USAGE) from error
    if seconds > LONGEST_OVERLAP:
        raise CommandError("--overlap: at most 720h; revoke a key that nobody uses", USAGE)
    return seconds


async def _rotate(
    cluster: Cluster, namespace: str, name: str, digest: str, until: datetime | None
) -> None:
    try:
        await cluster.replace(SECRET, rotated(await _get(cluster, namespace, name), digest, until))
    except InvalidKey as error:
        raise CommandError(f"key {name} opens nothing: {error}; mend its Secret first") from error
    except Conflict as error:
        raise CommandError(f"key {name} was changed just now; try again") from error


def revoke(target: Target, name: str, output: Output) -> None:
    """Delete a key; the gateways refuse it within seconds.

    :raises CommandError: when there is no such key.
    """
    connected(target, lambda cluster: _revoke(cluster, target.namespace, name))
    if output is Output.JSON:
        show.as_json({"name": name, "revoked": True})
    else:
        show.line(f"key {name} revoked")


async def _revoke(cluster: Cluster, namespace: str, name: str) -> None:
    secret = await _get(cluster, namespace, name)
    await cluster.delete(SECRET, namespace, PREFIX + name, uid=secret["metadata"]["uid"])


async def _get(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Return the Secret of a key.

    :raises CommandError: when there is none, or it is none of a key.
    """
    missing = CommandError(f"no key {name} in namespace {namespace}; see `overspill keys list`")
    try:
        secret = await cluster.get(SECRET, namespace, PREFIX + name)
    except NotFound as error:
        raise missing from error
    if secret["metadata"].get("labels", {}).get(LABEL_KEY) != "true":
        raise missing
    return secret
