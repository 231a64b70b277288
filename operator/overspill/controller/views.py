"""What the last reconcile of each service saw, as a number a kind: is it still what is? Pure.

A number stands for the versions of the service, or of everything of one kind that is its own by
label, so that a list of that kind, which is read by label, gives the same one. Of a disruption
budget it stands for what is not its status: that is nothing to us, and its controller writes it
after each change of a pod.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from overspill.api.names import LABEL_MANAGED_BY, LABEL_SERVICE, MANAGED_BY
from overspill.cluster.kinds import PDB
from overspill.controller.catalog import Key

Object = dict[str, Any]

CHILD_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_SERVICE}"


# What a write of the status changes in an object's metadata.
_OF_EACH_WRITE = frozenset({"resourceVersion", "managedFields"})


def fingerprint(kind: str, objects: Iterable[Object]) -> int:
    """Return one number for the versions of some objects of a kind, whatever their order."""
    return sum(_number(kind, obj["metadata"]) for obj in objects)


def _number(kind: str, metadata: Object) -> int:
    if kind != PDB.kind:
        return version(metadata["uid"], metadata["resourceVersion"])
    kept = {name: value for name, value in metadata.items() if name not in _OF_EACH_WRITE}
    return hash(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS))


def version(uid: str, resource_version: str) -> int:
    """Return the number of one object."""
    return hash((uid, resource_version))


def labelled(obj: Object, service: str) -> bool:
    """Whether an object is a service's own by its labels."""
    labels = obj["metadata"].get("labels") or {}
    return labels.get(LABEL_SERVICE) == service and labels.get(LABEL_MANAGED_BY) == MANAGED_BY


@dataclass
class Views:
    """The numbers of all services."""

    _seen: dict[Key, dict[str, int]] = field(default_factory=dict)

    def saw(self, key: Key, own: int, others: Mapping[str, Iterable[Object]]) -> None:
        """Take up what a reconcile read.

        :param own: the service's own number.
        :param others: children and pods, by kind; those that do not bear its labels do not count.
        """
        self._seen[key] = {key.kind: own} | {
            kind: number
            for kind, objects in others.items()
            if (number := fingerprint(kind, (o for o in objects if labelled(o, key.name))))
        }

    def knows(self, key: Key, kind: str, metadata: Object) -> bool:
        """Whether the last reconcile of a service read this object, its only one of the kind."""
        return self._seen.get(key, {}).get(kind) == _number(kind, metadata)

    def forget(self, key: Key) -> None:
        """Forget a service that is gone."""
        self._seen.pop(key, None)

    def differ(self, kind: str, now: Mapping[Key, int]) -> set[Key]:
        """Return the services whose objects of a kind are no longer as their last reconcile saw.

        :param now: the number of each service; 0 where it has no such object.
        """
        return {
            key
            for key, number in now.items()
            if key not in self._seen or self._seen[key].get(kind, 0) != number
        }
