"""How a sound example becomes one that is not quite sound, whoever drives the fuzzing."""

from collections.abc import Iterator
from random import Random
from typing import Any

import orjson

# Where a value stands: what holds it, and its name or number in there.
Place = tuple[Any, Any]
VALUES: list[Any] = [None, True, 0, -1, 1.5, 2**63, "", "a", "\x00", [], {}, [[]], {"a": None}]


def rewritten(data: bytes, rng: Random) -> bytes:
    """Return a text that is still JSON, with other content.

    Bytes that change one by one leave nearly nothing that a parser takes, so what comes after it
    would hardly be reached.

    :param data: JSON, or lines of which some hold it (``data: {…}``); else it is returned as it is.
    """
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    head, brace, rest = lines[number].partition(b"{")
    try:
        tree = orjson.loads(brace + rest)
        for _ in range(rng.randint(1, 3)):
            _change(tree, rng)
        lines[number] = head + orjson.dumps(tree)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        return data
    return b"\n".join(lines)


def _change(tree: Any, rng: Random) -> None:
    """Replace, drop, copy or rename one value."""
    found = list(_places(tree))
    if not found:
        return
    (holder, key), (other, other_key) = rng.choice(found), rng.choice(found)
    match rng.randrange(4):
        case 0:
            holder[key] = rng.choice(VALUES)
        case 1:
            del holder[key]
        case 2:
            holder[key] = orjson.loads(orjson.dumps(other[other_key]))
        case _ if isinstance(holder, dict) and isinstance(other_key, str):
            holder[other_key] = holder.pop(key)
        case _ if isinstance(holder, list):
            holder.append(holder[key])


def _places(tree: Any) -> Iterator[Place]:
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inside:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
