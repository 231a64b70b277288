"""Settings and a user's own arguments → llama.cpp's parameter object.

Names are those of llama.cpp's `common_params`, dots reach nested ones; enum values go without
their prefix.
https://github.com/ggml-org/llama.cpp/blob/master/common/common.h
"""

import difflib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from overspill.engine.errors import InvalidOptions
from overspill.engine.llamacpp import RESERVED, Setting


def apply(params: Any, chosen: Mapping[str, Setting]) -> None:
    """Set `chosen` on llama.cpp's parameter object."""
    for name, value in chosen.items():
        owner, attribute = _locate(params, name)
        setattr(owner, attribute, _typed(name, getattr(owner, attribute), value))


def _typed(name: str, current: object, value: Setting) -> object:
    """`value` as the type that the option has now: settings are what JSON can say."""
    match current, value:
        case set(), list():
            return set(value)
        case Enum(), str():
            return coerce(name, current, value)
        case [Enum() as first, *_], list():  # a list of enum members
            return [coerce(name, first, str(one)) for one in value]
    return value


def apply_args(params: Any, args: Mapping[str, str]) -> None:
    """Set the user's own `name=value` arguments, last. Raises InvalidOptions."""
    for name, text in args.items():
        if name in RESERVED:
            raise InvalidOptions(
                f"engine argument {name!r} is set by Overspill; remove it, or use its own field"
            )
        owner, attribute = _locate(params, name)
        setattr(owner, attribute, coerce(name, getattr(owner, attribute), text))


def _locate(params: Any, name: str) -> tuple[Any, str]:
    """The object and attribute that a dotted name means."""
    owner = params
    *parents, attribute = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent, None)
    if attribute.startswith("_") or not hasattr(owner, attribute):
        known = [known for known in dir(params) if not known.startswith("_")]
        close = ", ".join(difflib.get_close_matches(name, known))
        hint = f"; did you mean {close}?" if close else "; names are those of its common_params"
        raise InvalidOptions(f"llama.cpp has no option {name!r}{hint}")
    return owner, attribute


def coerce(name: str, current: object, text: str) -> object:
    """`text` as the type that the option has now. Raises InvalidOptions."""
    match current:
        case bool():
            return _choice(name, text, {"true": True, "false": False})
        case Enum():
            kind = type(current)
            prefix = f"{kind.__name__}_".lower()
            members = {member.name.lower().removeprefix(prefix): member for member in kind}
            return _choice(name, text.lower().removeprefix(prefix), members)
        case int() | float() | str():
            return _convert(name, text, type(current))
        case list() | dict():
            return _structure(name, text, type(current))
    raise InvalidOptions(f"engine argument {name!r} cannot be set as name=value")


def _choice(name: str, text: str, choices: Mapping[str, object]) -> object:
    if text not in choices:
        raise InvalidOptions(f"engine argument {name}={text}: give one of {', '.join(choices)}")
    return choices[text]


def _convert(name: str, text: str, kind: type[int] | type[float] | type[str]) -> object:
    try:
        return kind(text)
    except ValueError:
        raise InvalidOptions(f"engine argument {name}={text}: give a {_WORDS[kind]}") from None


def _structure(name: str, text: str, kind: type) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, kind):
        raise InvalidOptions(f"engine argument {name}={text}: give a JSON {_WORDS[kind]}")
    return value


_WORDS: Mapping[type, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    list: "list",
    dict: "object",
}
