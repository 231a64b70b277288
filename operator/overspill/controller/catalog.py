"""Which services concern each other; kept from events, so that no reconcile lists a namespace.

Two things tie objects together: a served name that two services of a namespace share (the older
wins), and the providers that a service lists. Every resync replaces the whole catalog, so a
lost event heals.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from overspill.cluster.kinds import INFERENCE_PROVIDER, INFERENCE_SERVICE, Kind


@dataclass(frozen=True, order=True)
class Key:
    """A custom resource."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def service(cls, namespace: str, name: str) -> "Key":
        """Return the key of an InferenceService."""
        return cls(INFERENCE_SERVICE.kind, namespace, name)

    @classmethod
    def provider(cls, namespace: str, name: str) -> "Key":
        """Return the key of an InferenceProvider."""
        return cls(INFERENCE_PROVIDER.kind, namespace, name)

    @property
    def path(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


KINDS: dict[str, Kind] = {kind.kind: kind for kind in (INFERENCE_SERVICE, INFERENCE_PROVIDER)}


@dataclass(frozen=True)
class Entry:
    """What matters of one service to others."""

    served_name: str
    created: str
    providers: frozenset[Key]


@dataclass
class Catalog:
    """All services that were seen."""

    entries: dict[Key, Entry] = field(default_factory=dict)

    def put(self, raw: dict[str, Any]) -> set[Key]:
        """Take up a service; return the services that its change concerns, itself included."""
        key = Key.service(raw["metadata"]["namespace"], raw["metadata"]["name"])
        before = self.entries.get(key)
        entry = self.entries[key] = _entry(key, raw)
        names = {entry.served_name} | ({before.served_name} if before else set())
        return {key, *(self._sharing(key, names) if before != entry else ())}

    def remove(self, key: Key) -> set[Key]:
        """Forget a service; return those that its end concerns, itself included."""
        entry = self.entries.pop(key, None)
        return {key, *(self._sharing(key, {entry.served_name}) if entry else ())}

    def replace(self, items: Iterable[dict[str, Any]]) -> None:
        """Take a complete list of services as the truth."""
        self.entries.clear()
        for item in items:
            self.put(item)

    def users(self, provider: Key) -> set[Key]:
        """Return the services that list a provider."""
        return {key for key, entry in self.entries.items() if provider in entry.providers}

    def name_taken_by(self, key: Key) -> str:
        """Return the path of the service that has this one's served name by right, "" if none.

        The older wins, and of the same second the one whose name comes first.
        """
        mine = self.entries.get(key)
        if mine is None:
            return ""
        rivals = self._sharing(key, {mine.served_name})
        older = [r for r in rivals if (self.entries[r].created, r) < (mine.created, key)]
        return min(older, key=lambda r: (self.entries[r].created, r)).path if older else ""

    def _sharing(self, key: Key, names: set[str]) -> set[Key]:
        return {
            other
            for other, entry in self.entries.items()
            if other != key and other.namespace == key.namespace and entry.served_name in names
        }


def _entry(key: Key, raw: dict[str, Any]) -> Entry:
    spec = raw.get("spec") or {}
    listed = (spec.get("spillover") or {}).get("providers") or []
    return Entry(
        served_name=(spec.get("model") or {}).get("servedName") or key.name,
        created=raw["metadata"].get("creationTimestamp", ""),
        providers=frozenset(
            Key.provider(item.get("namespace") or key.namespace, item["name"]) for item in listed
        ),
    )
