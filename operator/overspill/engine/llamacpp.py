"""Neutral options → llama.cpp's own settings, and settings → its parameter object.

Settings are names of llama.cpp's `common_params` (dots reach nested ones) with plain values, so
that they can be logged, compared in tests, and handed to the child process as JSON.
https://github.com/ggml-org/llama.cpp/blob/master/common/common.h
"""

import difflib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from overspill.engine.errors import InvalidOptions
from overspill.engine.options import Options

MIB = 1 << 20
# Tokens of one step. On CPUs a prompt costs the same in steps of 64 as of 512 (8.2 s of CPU time
# for 1,078 tokens either way), and between steps every other request gets its next token.
STEP_TOKENS = 64
# Of these, llama.cpp multiplies at most so many at once (its default).
MAX_MICRO_STEP_TOKENS = 512
# Prompts whose slot was taken by another are kept in memory, within this share of the limit.
PROMPT_CACHE_SHARE = 1 / 8
PROMPT_CACHE_MAX_MIB = 8192
# A kept-alive connection holds one of llama.cpp's HTTP threads: health checks need spare ones.
SPARE_HTTP_THREADS = 64

# What the operator's probes, Service and NetworkPolicy rely on.
RESERVED = frozenset(
    {
        "api_keys",
        "api_prefix",
        "endpoint_metrics",
        "hostnames",
        "model.path",
        "model_alias",
        "port",
        "ssl_file_cert",
        "ssl_file_key",
    }
)

Setting = bool | int | float | str | list[str]


def settings(options: Options, model: Path, memory_limit: int | None) -> dict[str, Setting]:
    """llama.cpp's settings for `options`; `memory_limit` is in bytes, None when there is none.

    With a context length each sequence has its own KV cache of that length, so no request can
    take another's room. Without one, all share a cache as long as the model's own context.
    """
    length = options.context_length
    step, micro_step = _steps(options)
    chosen: dict[str, Setting] = {
        "model.path": str(model),
        "model_alias": [options.served_name],
        "hostnames": ["0.0.0.0"],  # noqa: S104 - a pod's only way to be reached
        "port": options.port,
        "endpoint_metrics": True,
        "endpoint_slots": False,  # it shows other requests' parameters
        "ui": False,
        "offline": True,
        "verbosity": 1,  # errors; warnings come with ordinary requests
        "n_threads_http": SPARE_HTTP_THREADS + 2 * options.max_sequences,
        "n_parallel": options.max_sequences,
        "n_ctx": length * options.max_sequences if length else 0,
        "kv_unified": length is None,
        "fit_params": False,  # never shorten a context silently
        "n_batch": step,
        "n_ubatch": micro_step,
        "cache_prompt": options.prefix_caching,
        "cache_ram_mib": _prompt_cache_mib(memory_limit) if options.prefix_caching else 0,
    }
    if options.cpu_threads:
        chosen |= {f"{pool}.n_threads": options.cpu_threads for pool in _POOLS}
    return chosen


_POOLS = ("cpuparams", "cpuparams_batch")


def _steps(options: Options) -> tuple[int, int]:
    """Tokens of one step, and of these at once."""
    if dict(options.engine_args).get("embedding") == "true":  # an input is never split
        whole = options.max_batched_tokens or options.context_length or MAX_MICRO_STEP_TOKENS
        return whole, whole
    step = options.max_batched_tokens or max(STEP_TOKENS, options.max_sequences)
    return step, min(step, MAX_MICRO_STEP_TOKENS)


def _prompt_cache_mib(memory_limit: int | None) -> int:
    if memory_limit is None:
        return PROMPT_CACHE_MAX_MIB
    return min(PROMPT_CACHE_MAX_MIB, int(memory_limit * PROMPT_CACHE_SHARE) // MIB)


def apply(params: Any, chosen: Mapping[str, Setting]) -> None:
    """Set `chosen` on llama.cpp's parameter object."""
    for name, value in chosen.items():
        owner, attribute = _locate(params, name)
        current = getattr(owner, attribute)
        setattr(owner, attribute, set(value) if isinstance(current, set) else value)  # type: ignore[arg-type]


def apply_args(params: Any, args: Mapping[str, str]) -> None:
    """Set the user's own `name=value` arguments, last. Raises InvalidOptions."""
    for name, text in args.items():
        if name in RESERVED:
            raise InvalidOptions(f"engine argument {name!r} is set by Overspill; remove it")
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
