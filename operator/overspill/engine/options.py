"""The engine's options, read from environment variables.

The operator sets them (they are the contract between a runtime template and the image), so
names are neutral: no llama.cpp word appears here. Wrong values are refused with the variable's
name and the remedy, before a model is touched.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overspill.engine.errors import InvalidOptions

DEFAULT_PORT = 8000
DEFAULT_MAX_SEQUENCES = 4
DEFAULT_DRAIN_SECONDS = 120.0
DEFAULT_DRAIN_DELAY = 5.0
MAX_BYTES = 1 << 50
MAX_SPECULATIVE_TOKENS = 16
QUANTIZATIONS = ("none", "fp8", "int8", "int4")
KV_CACHE_DTYPES = ("auto", "fp16", "bf16", "fp8", "int8")


@dataclass(frozen=True)
class Speculative:
    """Tokens that are guessed, then checked in one step; by a `draft` model or by an `ngram`."""

    method: str
    tokens: int
    model: Path | None = None  # of method draft


@dataclass(frozen=True)
class Accelerator:
    """The devices of this replica; `memory` is bytes of one, None when nobody knows."""

    name: str
    count: int
    memory: int | None


@dataclass(frozen=True)
class Options:
    """One engine's options.

    `context_length` counts tokens of prompt plus answer of one request; None: the model's own.
    `max_batched_tokens` is the most that one step computes; None: the engine's own.
    `kv_host_offload` is bytes of the host's memory for prefixes that left the KV cache.
    `drain_seconds` is how long running requests may take after SIGTERM.
    """

    model_path: Path
    served_name: str
    port: int = DEFAULT_PORT
    context_length: int | None = None
    max_sequences: int = DEFAULT_MAX_SEQUENCES
    max_batched_tokens: int | None = None
    quantization: str = "none"
    kv_cache_dtype: str = "auto"
    prefix_caching: bool = True
    kv_host_offload: int | None = None
    speculative: Speculative | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    accelerator: Accelerator | None = None
    cpu_threads: int | None = None
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    engine_args: tuple[tuple[str, str], ...] = ()

    @property
    def embedding(self) -> bool:
        """Whether llama.cpp is asked to serve embeddings."""
        return dict(self.engine_args).get("embedding") == "true"

    @property
    def devices(self) -> int:
        """Among how many devices the model is divided."""
        return self.tensor_parallel * self.pipeline_parallel


def from_environment(env: Mapping[str, str]) -> Options:
    """Options from `OVERSPILL_*` variables. Raises InvalidOptions."""
    path = env.get("OVERSPILL_MODEL_PATH", "")
    if not path:
        raise InvalidOptions("OVERSPILL_MODEL_PATH is not set; give a model file or its folder")
    return Options(
        model_path=Path(path),
        served_name=env.get("OVERSPILL_SERVED_NAME") or Path(path).stem or "model",
        port=_integer(env, "OVERSPILL_PORT", 1, 65535) or DEFAULT_PORT,
        context_length=_integer(env, "OVERSPILL_CONTEXT_LENGTH", 128, 10_000_000),
        max_sequences=_integer(env, "OVERSPILL_MAX_SEQUENCES", 1, 1024) or DEFAULT_MAX_SEQUENCES,
        max_batched_tokens=_integer(env, "OVERSPILL_MAX_BATCHED_TOKENS", 32, 1_048_576),
        quantization=_choice(env, "OVERSPILL_QUANTIZATION", QUANTIZATIONS),
        kv_cache_dtype=_choice(env, "OVERSPILL_KV_CACHE_DTYPE", KV_CACHE_DTYPES),
        prefix_caching=_boolean(env, "OVERSPILL_PREFIX_CACHING", default=True),
        kv_host_offload=_integer(env, "OVERSPILL_KV_HOST_OFFLOAD", 1, MAX_BYTES),
        speculative=_speculative(env.get("OVERSPILL_SPECULATIVE", "")),
        tensor_parallel=_integer(env, "OVERSPILL_TENSOR_PARALLEL", 1, 64) or 1,
        pipeline_parallel=_integer(env, "OVERSPILL_PIPELINE_PARALLEL", 1, 64) or 1,
        accelerator=_accelerator(env),
        cpu_threads=_integer(env, "OVERSPILL_CPU_THREADS", 1, 1024),
        drain_seconds=drain_seconds(env),
        engine_args=_engine_args(env.get("OVERSPILL_ENGINE_ARGS", "")),
    )


def drain_seconds(env: Mapping[str, str]) -> float:
    """How long running requests may take after SIGTERM. Raises InvalidOptions."""
    return _seconds(env, "OVERSPILL_DRAIN_SECONDS", DEFAULT_DRAIN_SECONDS)


def drain_delay(env: Mapping[str, str]) -> float:
    """How long a pod may take to leave its Service, in seconds. Raises InvalidOptions."""
    return _seconds(env, "OVERSPILL_DRAIN_DELAY", DEFAULT_DRAIN_DELAY)


def _accelerator(env: Mapping[str, str]) -> Accelerator | None:
    count = _integer(env, "OVERSPILL_ACCELERATOR_COUNT", 1, 1024)
    memory = _integer(env, "OVERSPILL_ACCELERATOR_MEMORY", 1, MAX_BYTES)
    name = env.get("OVERSPILL_ACCELERATOR") or "the accelerator"
    return Accelerator(name, count, memory) if count else None


def _speculative(text: str) -> Speculative | None:
    """`{"method": "ngram", "tokens": 4}`, or method "draft" with the "model" that guesses."""
    if not text:
        return None
    try:
        given = json.loads(text)
        method, tokens, model = given["method"], given["tokens"], given.get("model")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidOptions("OVERSPILL_SPECULATIVE is not JSON with method and tokens") from None
    if method not in ("ngram", "draft"):
        raise InvalidOptions(f"OVERSPILL_SPECULATIVE: method is {method!r}; give ngram or draft")
    if type(tokens) is not int or not 1 <= tokens <= MAX_SPECULATIVE_TOKENS:
        raise InvalidOptions(
            f"OVERSPILL_SPECULATIVE: tokens is {tokens!r}; "
            f"give a number from 1 to {MAX_SPECULATIVE_TOKENS}"
        )
    if (method == "draft") != (isinstance(model, str) and model != ""):
        raise InvalidOptions("OVERSPILL_SPECULATIVE: give model with method draft, and only there")
    return Speculative(method, tokens, Path(model) if model else None)


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = env.get(name) or choices[0]
    if text not in choices:
        raise InvalidOptions(f"{name} is {text!r}; give one of {', '.join(choices)}")
    return text


def _integer(env: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = env.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise InvalidOptions(f"{name} is {text!r}; give a whole number") from None
    if not low <= value <= high:
        raise InvalidOptions(f"{name} is {value}; give a number from {low} to {high}")
    return value


def _boolean(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "")
    if text not in ("", "true", "false"):
        raise InvalidOptions(f"{name} is {text!r}; give true or false")
    return text == "true" if text else default


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise InvalidOptions(f"{name} is {text!r}; give seconds, such as 120") from None
    if not 0 <= value <= 86_400:  # also refuses NaN
        raise InvalidOptions(f"{name} is {text}; give seconds from 0 to 86400")
    return value


def _engine_args(text: str) -> tuple[tuple[str, str], ...]:
    """`["name=value", …]` as pairs; the values' types are the engine's business."""
    try:
        args = json.loads(text) if text else []
    except json.JSONDecodeError as error:
        raise InvalidOptions(f"OVERSPILL_ENGINE_ARGS is not JSON: {error}") from None
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise InvalidOptions('OVERSPILL_ENGINE_ARGS must be a JSON list of "name=value"')
    return tuple(_pair(arg) for arg in args)


def _pair(arg: str) -> tuple[str, str]:
    name, equals, value = arg.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not name or not equals:
        raise InvalidOptions(f"engine argument {arg!r} is not of the form name=value")
    return name, value
