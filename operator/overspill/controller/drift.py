"""Does an object in the cluster still say what we rendered? Pure.

Two questions, both answered by the live object alone, so nothing is remembered and a restart
changes nothing:

* Is everything we rendered in it? Fields that others or the API server's defaults added do not
  count, except inside lists that have no merge key.
* Does our field manager own something that we no longer render? Then an apply must remove it.
"""

import json
from collections.abc import Iterator
from typing import Any

from overspill.api.names import AUTOSCALER_MANAGER, OPERATOR_MANAGER
from overspill.api.values import parse_quantity

Object = dict[str, Any]

# Lists that server-side apply merges by keys: others may add items. Inside a list without keys
# (the rules of a NetworkPolicy, an affinity's terms) everything must be as we want it.
_MERGE_KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "claims": ("name",),
    "resourceClaims": ("name",),
    "ports": ("containerPort", "port", "protocol"),  # of a container, of a Service
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_QUANTITIES = frozenset({"limits", "requests"})
_EMPTY: tuple[Any, ...] = ({}, [], "", None, False, 0)


def difference(rendered: Object, live: Object, manager: str) -> str:
    """Return the path of the first field that an apply would change, "" when none.

    :param rendered: what we want.
    :param live: what is, with its managedFields.
    :param manager: our field manager.
    """
    ours = owned(live, manager)
    if ours is None:
        return "metadata.managedFields"
    return next(_missing(rendered, live, ""), "") or next(_surplus(ours, rendered, ""), "")


def owned(live: Object, manager: str, subresource: str = "") -> Object | None:
    """Return the fields (FieldsV1) that a manager owns by server-side apply, None when none."""
    for entry in live.get("metadata", {}).get("managedFields") or []:
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and entry.get("subresource", "") == subresource
        ):
            fields: Object = entry.get("fieldsV1", {})
            return fields
    return None


def owns_replicas(live: Object, manager: str, subresource: str = "") -> bool:
    """Whether a manager owns ``spec.replicas``."""
    return "f:replicas" in (owned(live, manager, subresource) or {}).get("f:spec", {})


def last_writer(live: Object) -> str:
    """Return the manager, other than ours, that wrote to an object last, "" when none did."""
    others = [
        entry
        for entry in live["metadata"].get("managedFields") or []
        if entry["manager"] not in (OPERATOR_MANAGER, AUTOSCALER_MANAGER)
        and not entry.get("subresource")
    ]
    last = max(others, key=lambda entry: entry.get("time", ""), default=None)
    return last["manager"] if last else ""


def _missing(
    wanted: Any, live: Any, path: str, key: str = "", *, atomic: bool = False
) -> Iterator[str]:
    """Yield paths of what is wanted and is not in ``live``."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        quantities = key in _QUANTITIES
        for name, value in wanted.items():
            here = f"{path}.{name}" if path else name
            if quantities and _same_quantity(value, live.get(name)):
                continue
            yield from _missing(value, live.get(name), here, name, atomic=atomic)
    elif isinstance(wanted, list) and isinstance(live, list):
        keys = () if atomic else _MERGE_KEYS.get(key, ())
        yield from _missing_items(wanted, live, path, keys)
    elif wanted != live and not (live is None and wanted in _EMPTY):
        yield path


def _missing_items(
    wanted: list[Any], live: list[Any], path: str, keys: tuple[str, ...]
) -> Iterator[str]:
    if keys:
        by_key = {_values(item, keys): item for item in live}
        for item in wanted:
            here = f"{path}[{'/'.join(str(value) for value in _values(item, keys) if value)}]"
            yield from _missing(item, by_key.get(_values(item, keys)), here)
    elif len(wanted) != len(live):
        yield path
    else:
        for index, (want, have) in enumerate(zip(wanted, live, strict=True)):
            yield from _missing(want, have, f"{path}[{index}]", atomic=True)


def _values(item: Object, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _same_quantity(wanted: Any, live: Any) -> bool:
    """The API server rewrites quantities: 1000m becomes 1."""
    try:
        return parse_quantity(str(wanted)) == parse_quantity(str(live))
    except ValueError:
        return False


def _surplus(fields: Object, rendered: Any, path: str) -> Iterator[str]:
    """Yield paths that we own and no longer render.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    for name, inner in fields.items():
        kind, _, rest = name.partition(":")
        if kind == "f":
            here = f"{path}.{rest}" if path else rest
            if not isinstance(rendered, dict) or rest not in rendered:
                yield here
            elif inner:
                yield from _surplus(inner, rendered[rest], here)
        elif kind == "k":
            item = _find(rendered, json.loads(rest))
            if item is None:
                yield f"{path}[{rest}]"
            else:
                yield from _surplus(inner, item, f"{path}[{rest}]")


def _find(items: Any, keys: Object) -> Any:
    """Return the rendered item of a keyed list; a key that we left out takes its default."""
    for item in items if isinstance(items, list) else []:
        if all(item.get(name, value) == value for name, value in keys.items()):
            return item
    return None
