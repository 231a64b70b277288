"""Neutral options → llama.cpp's own settings, and what its end means.

Settings are names of llama.cpp's `common_params` (dots reach nested ones) with plain values, so
that they can be logged, compared in tests, and handed to the child process as JSON.
https://github.com/ggml-org/llama.cpp/blob/master/common/common.h
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from overspill.engine import gguf, llamacpp_memory
from overspill.engine.base import Launch
from overspill.engine.errors import EngineError, InvalidOptions, ModelLoadFailed
from overspill.engine.fit import Formula
from overspill.engine.model import find_gguf
from overspill.engine.options import Options, Speculative

MIB = 1 << 20
# Tokens of one step. On CPUs a prompt costs the same in steps of 64 as of 512 (8.2 s of CPU time
# for 1,078 tokens either way), and between steps every other request gets its next token.
STEP_TOKENS = 64
# Of these, llama.cpp multiplies at most so many at once (its default).
MAX_MICRO_STEP_TOKENS = 512
# Prompts whose slot was taken by another are kept in memory, within this share of what is spare.
PROMPT_CACHE_SHARE = 1 / 4
PROMPT_CACHE_MAX_MIB = 8192
# A kept-alive connection holds one of llama.cpp's HTTP threads: health checks need spare ones.
SPARE_HTTP_THREADS = 64

# What the operator's probes, Service and NetworkPolicy rely on, what keeps requests apart, and the
# sequences by which the gateway counts: those are batching.maxSequences.
RESERVED = frozenset(
    {
        "api_keys",
        "api_prefix",
        "endpoint_metrics",
        "endpoint_slots",
        "hostnames",
        "model.path",
        "model_alias",
        "n_parallel",
        "offline",
        "port",
        "ssl_file_cert",
        "ssl_file_key",
    }
)

Setting = bool | int | float | str | list[str]

KV_CACHE_TYPE = {"auto": "f16", "fp16": "f16", "bf16": "bf16", "int8": "q8_0"}
# Tokens that must have come in this order before. llama.cpp looks for 12 and then guesses 48, as
# for text that is copied; with few tokens to guess, few must match. Of its kinds of n-grams,
# `map_k` guessed 28 tokens of 40 and 26 were right; of the same text `simple` guessed none.
NGRAM_WINDOW = 4


class LlamaCpp:
    """llama.cpp's server, in a child process (`overspill.engine.server`)."""

    title = "llama.cpp"
    running = "llamacpp:requests_processing"
    waiting = "llamacpp:requests_deferred"
    loading: int | None = 503  # of every page: "Loading model"
    ready_line: str | None = None
    smaller_cache = "int8"

    def find(self, path: Path) -> Path:
        """The GGUF file."""
        return find_gguf(path)

    def share(self, options: Options) -> float:
        """All of it."""
        return 1.0

    def formula(self, options: Options, model: Path) -> Formula:
        """What llama.cpp allocates. Raises UnknownShape."""
        draft = options.speculative and options.speculative.model
        files = [model, find_gguf(draft)] if draft else [model]
        shapes = [gguf.read_shape(file) for file in files]
        return lambda changed: llamacpp_memory.need(changed, steps(changed), shapes)

    def launch(self, options: Options, model: Path, spare: int | None) -> Launch:
        """The child's command, with all settings in its last argument."""
        chosen = settings(options, model, spare)
        return Launch(command(chosen, dict(options.engine_args), options.devices), {})

    def fault(self, status: int, lines: Sequence[str], served: bool) -> EngineError | None:
        """The fault whose exit status and line the child left."""
        for kind in (InvalidOptions, ModelLoadFailed):
            if status == kind.exit_status:
                message = (lines[-1] if lines else "").removeprefix(f"{kind.__name__}: ")
                return kind(_with_cause(message, lines))
        return None


def _with_cause(message: str, lines: Sequence[str]) -> str:
    """Add llama.cpp's own first error line, where there is one."""
    cause = next((line for line in lines if " E " in line), "")
    return f"{message} ({cause.split(' E ', 1)[1].strip()})" if cause else message


def command(
    chosen: Mapping[str, Setting], args: Mapping[str, str], devices: int
) -> tuple[str, ...]:
    """The command of a server, which ends when its standard input is closed.

    `args` are a user's own; of `devices` above 1 it must see as many GPUs.
    """
    given = {"settings": chosen, "args": args, "devices": devices}
    return (sys.executable, "-m", "overspill.engine.server", json.dumps(given))


def settings(options: Options, model: Path, spare: int | None) -> dict[str, Setting]:
    """llama.cpp's settings for `options`; `spare` is bytes of memory, None without a limit.

    With a context length each sequence has its own KV cache of that length, so no request can
    take another's room. Without one, all share a cache as long as the model's own context.
    Raises InvalidOptions.
    """
    if options.quantization != "none":
        raise InvalidOptions(
            f"quantization {options.quantization}: llama.cpp serves the weights as the GGUF file "
            "holds them; give a file of that quantization, and quantization none"
        )
    length = options.context_length
    step, micro_step = steps(options)
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
        "cache_ram_mib": _prompt_cache_mib(options, spare),
    }
    if options.cpu_threads:
        chosen |= {f"{pool}.n_threads": options.cpu_threads for pool in _POOLS}
    return chosen | _kv_cache_type(options) | _speculative(options.speculative) | _split(options)


_POOLS = ("cpuparams", "cpuparams_batch")


def _kv_cache_type(options: Options) -> dict[str, Setting]:
    if options.kv_cache_dtype not in KV_CACHE_TYPE:
        raise InvalidOptions("llama.cpp has no fp8 KV cache; give int8, which is as small")
    kind = KV_CACHE_TYPE[options.kv_cache_dtype]
    return {"cache_type_k": kind, "cache_type_v": kind}


def _speculative(wanted: Speculative | None) -> dict[str, Setting]:
    """https://github.com/ggml-org/llama.cpp/blob/master/docs/speculative.md"""
    if wanted is None:
        return {}
    if wanted.model:
        return {
            "speculative.types": ["draft_simple"],
            "speculative.draft.mparams.path": str(find_gguf(wanted.model)),
            "speculative.draft.n_max": wanted.tokens,
        }
    return {
        "speculative.types": ["ngram_map_k"],
        "speculative.ngram_map_k.size_n": NGRAM_WINDOW,
        "speculative.ngram_map_k.size_m": wanted.tokens,
    }


def _split(options: Options) -> dict[str, Setting]:
    """How several GPUs share the model: rows of each matrix, or whole layers."""
    if options.tensor_parallel > 1 and options.pipeline_parallel > 1:
        raise InvalidOptions("llama.cpp splits by tensor or by pipeline, not by both; set one to 1")
    if options.tensor_parallel > 1:
        return {"split_mode": "row"}
    return {"split_mode": "layer"} if options.pipeline_parallel > 1 else {}


def steps(options: Options) -> tuple[int, int]:
    """Tokens of one step, and of these at once."""
    if options.embedding:  # an input is never split
        whole = options.max_batched_tokens or options.context_length or MAX_MICRO_STEP_TOKENS
        return whole, whole
    step = options.max_batched_tokens or max(STEP_TOKENS, options.max_sequences)
    return step, min(step, MAX_MICRO_STEP_TOKENS)


def _prompt_cache_mib(options: Options, spare: int | None) -> int:
    """MiB of the host's memory for prompts that left their slot."""
    if not options.prefix_caching:
        return 0
    if options.kv_host_offload is not None:
        return options.kv_host_offload // MIB
    if spare is None:
        return PROMPT_CACHE_MAX_MIB
    return min(PROMPT_CACHE_MAX_MIB, int(spare * PROMPT_CACHE_SHARE) // MIB)
