"""Which services concern each other; kept from events, so that no reconcile lists a namespace.

Two things tie objects together: a served name that two services of a namespace share (the older
wins), and what a service names: its providers, its InferenceRuntime and its models' claims. Every
audit replaces what a list tells, so a lost event heals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from overspill.api.engine import AUTO, BUNDLED
from overspill.cluster.kinds import (
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    PVC,
    Kind,
)
from overspill.ledger.messages import OF_PROVIDER, OF_SERVICE


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

    @classmethod
    def runtime(cls, namespace: str, name: str) -> "Key":
        """Return the key of an InferenceRuntime."""
        return cls(INFERENCE_RUNTIME.kind, namespace, name)

    @classmethod
    def claim(cls, namespace: str, name: str) -> "Key":
        """Return the key of a PersistentVolumeClaim."""
        return cls(PVC.kind, namespace, name)

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
    names: frozenset[Key]  # other objects that it names


@dataclass
class Catalog:
    """All services that were seen."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    _named: dict[tuple[str, str], set[Key]] = field(default_factory=dict)  # (namespace, name)
    _touched: set[Key] = field(default_factory=set)  # by events, since the last list began

    def put(self, raw: dict[str, Any]) -> set[Key]:
        """Take up a service; return the services that its change concerns, itself included."""
        key, entry = entry_of(raw)
        self._touched.add(key)
        return self._put(key, entry)

    def _put(self, key: Key, entry: Entry) -> set[Key]:
        before = self.entries.get(key)
        if before == entry:
            return {key}
        before_too = self.remove(key)
        self.entries[key] = entry
        self._named.setdefault((key.namespace, entry.served_name), set()).add(key)
        return before_too | self._sharing(key)

    def remove(self, key: Key) -> set[Key]:
        """Forget a service; return those that its end concerns, itself included."""
        self._touched.add(key)
        if key not in self.entries:
            return {key}
        concerned = self._sharing(key)
        name = (key.namespace, self.entries.pop(key).served_name)
        self._named[name].discard(key)
        if not self._named[name]:
            del self._named[name]
        return concerned

    def begin_list(self) -> None:
        """Say that a complete list is being read: what changes from now on is newer than it."""
        self._touched.clear()

    def replace(self, listed: Mapping[Key, Entry], namespace: str = "") -> set[Key]:
        """Take a complete list as the truth of what did not change since ``begin_list``.

        :param namespace: of the list; empty means all.
        :return: services that a difference concerns, those that are gone included.
        """
        newer = frozenset(self._touched)
        concerned: set[Key] = set()
        for key in self.within(namespace) - listed.keys() - newer:
            concerned |= self.remove(key)
        for key in listed.keys() - newer:
            if self.entries.get(key) != listed[key]:
                concerned |= self._put(key, listed[key])
        return concerned

    def within(self, namespace: str) -> set[Key]:
        """Return the services of a namespace; empty means all."""
        return {key for key in self.entries if namespace in ("", key.namespace)}

    def named(self, kind: Kind, namespace: str) -> set[Key]:
        """Return the objects of a kind that the services of a namespace name; empty means all."""
        return {
            key
            for service in self.within(namespace)
            for key in self.entries[service].names
            if key.kind == kind.kind
        }

    def concerned(self, account: str) -> set[Key]:
        """Return the objects whose status tells of an account of the ledger."""
        kind, _, path = account.partition("/")
        if kind == OF_SERVICE:
            return {Key.service(*path.split("/"))}
        if kind == OF_PROVIDER:
            key = Key.provider(*path.split("/"))
            return {key} | self.users(key)
        return set()  # a client's key has no status

    def users(self, named: Key) -> set[Key]:
        """Return the services that name an object."""
        return {key for key, entry in self.entries.items() if named in entry.names}

    def name_taken_by(self, key: Key) -> str:
        """Return the path of the service that has this one's served name by right, "" if none.

        The older wins, and of the same second the one whose name comes first.
        """
        if key not in self.entries:
            return ""
        # Itself included, so there is always a first.
        first = min(self._sharing(key), key=lambda rival: (self.entries[rival].created, rival))
        return "" if first == key else first.path

    def _sharing(self, key: Key) -> set[Key]:
        """Return the services that have this one's served name, itself included."""
        return set(self._named[key.namespace, self.entries[key].served_name])


def entry_of(raw: dict[str, Any]) -> tuple[Key, Entry]:
    """Return a service's key, and what of it matters to others."""
    key = Key.service(raw["metadata"]["namespace"], raw["metadata"]["name"])
    spec = raw.get("spec") or {}
    listed = (spec.get("spillover") or {}).get("providers") or []
    providers = (Key.provider(i.get("namespace") or key.namespace, i["name"]) for i in listed)
    runtime = (spec.get("engine") or {}).get("runtime", AUTO)
    runtimes = () if runtime in BUNDLED else (Key.runtime(key.namespace, runtime),)
    claims = (Key.claim(key.namespace, name) for name in _claims(spec))
    return key, Entry(
        served_name=(spec.get("model") or {}).get("servedName") or key.name,
        created=raw["metadata"].get("creationTimestamp", ""),
        names=frozenset((*providers, *runtimes, *claims)),
    )


def _claims(spec: dict[str, Any]) -> list[str]:
    """Return what ``InferenceService.claims`` does, of a spec that nobody has checked yet."""
    model = spec.get("model") or {}
    draft = ((spec.get("engine") or {}).get("speculative") or {}).get("draftModel") or {}
    uris = [uri for uri in (model.get("uri", ""), draft.get("uri", "")) if uri.startswith("pvc://")]
    cache = (model.get("cache") or {}).get("claimName")
    return [uri.removeprefix("pvc://").partition("/")[0] for uri in uris] + (
        [cache] if cache else []
    )
