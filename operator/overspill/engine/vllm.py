"""Neutral options → vLLM's own command line, and what its end means.

Weights are read as safetensors only, and no code comes with a model: remote code stays off, the
Hugging Face hub is not asked, and what would load code, open files or move the port is refused
among a user's own arguments.
https://docs.vllm.ai/en/stable/cli/serve/ · https://docs.vllm.ai/en/stable/usage/security/
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from overspill.engine import safetensors, vllm_memory
from overspill.engine.base import Launch
from overspill.engine.errors import (
    EngineError,
    InvalidOptions,
    ModelDoesNotFit,
    ModelLoadFailed,
)
from overspill.engine.fit import Formula
from overspill.engine.model import find_safetensors
from overspill.engine.options import Options, Speculative

GIB = 1 << 30
# Tokens that must have come in this order before, at most; vLLM has no default.
NGRAM_WINDOW = 4
QUANTIZATION = {"fp8": "fp8_per_tensor"}  # done while it loads
KV_CACHE_DTYPE = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "fp8",
    "int8": "int8_per_token_head",
}

# What the operator's probes, Service and NetworkPolicy rely on.
_OURS = (
    "api-key",
    "data-parallel-address",
    "data-parallel-rpc-port",
    "grpc",
    "grpc-port",
    "headless",
    "host",
    "kv-transfer-config",
    "master-addr",
    "master-port",
    "max-num-seqs",  # the gateway counts by batching.maxSequences
    "model",
    "nnodes",
    "node-rank",
    "port",
    "root-path",
    "served-model-name",
    "ssl-ca-certs",
    "ssl-certfile",
    "ssl-keyfile",
    "uds",
)
# What runs a caller's or a model's code, or opens files and hosts for a caller.
_UNSAFE = (
    "allowed-local-media-path",
    "chat-template",
    "code-revision",
    "config",  # a file with any argument in it
    "download-dir",
    "enable-mm-embeds",
    "enable-prompt-embeds",
    "hf-token",
    "io-processor-plugin",
    "load-format",
    "logits-processors",
    "middleware",
    "model-class-overrides",
    "model-loader-extra-config",
    "omni",
    "profiler-config",
    "reasoning-parser-plugin",
    "scheduler-cls",
    "tool-parser-plugin",
    "tool-server",
    "trust-remote-code",
    "trust-request-chat-template",
    "trust-request-mm-kwargs",
    "worker-cls",
    "worker-extension-cls",
)
RESERVED = frozenset(_OURS + _UNSAFE)

# Not to be changed by a user's own environment.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_API_KEY": "",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_SERVER_DEV_MODE": "0",
}


class VLLM:
    """vLLM, in a process of its own."""

    title = "vLLM"
    running = "vllm:num_requests_running"
    waiting = "vllm:num_requests_waiting"
    loading: int | None = None
    ready_line: str | None = "Application startup complete."
    smaller_cache = "fp8"

    def find(self, path: Path) -> Path:
        """The folder with config.json and its safetensors files."""
        return find_safetensors(path)

    def share(self, options: Options) -> float:
        """Its gpu_memory_utilization."""
        text = dict(options.engine_args).get("gpu_memory_utilization", "")
        try:
            return float(text)
        except ValueError:
            return vllm_memory.SHARE

    def formula(self, options: Options, model: Path) -> Formula:
        """What vLLM needs to start at all. Raises UnknownShape."""
        draft = options.speculative and options.speculative.model
        folders = [model, find_safetensors(draft)] if draft else [model]
        shapes = [safetensors.read_shape(folder) for folder in folders]
        return lambda changed: vllm_memory.need(changed, shapes)

    def launch(self, options: Options, model: Path, spare: int | None) -> Launch:
        """vLLM's command for `model`. Raises InvalidOptions."""
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
        return Launch((*command, *flags(options)), ENVIRONMENT)

    def fault(self, status: int, lines: Sequence[str], served: bool) -> EngineError | None:
        """The fault that vLLM's last lines tell of; None after it had served."""
        if status == 2 and (error := _first(_USAGE, lines)):
            return InvalidOptions(f"vLLM: {error}")
        cause = _first(_NO_MEMORY, lines)
        if cause:
            return None if served else ModelDoesNotFit(f"vLLM: {cause}")
        if served or status < 0:
            return None
        return ModelLoadFailed(f"vLLM could not start ({_cause(lines)})")


def flags(options: Options) -> list[str]:
    """vLLM's flags for `options`, a user's own last. Raises InvalidOptions."""
    chosen = {
        "host": "0.0.0.0",  # noqa: S104 - a pod's only way to be reached
        "port": options.port,
        "served-model-name": options.served_name,
        "load-format": "safetensors",
        "max-num-seqs": options.max_sequences,
        "max-num-batched-tokens": options.max_batched_tokens,
        "max-model-len": options.context_length,
        "quantization": _quantization(options.quantization),
        "kv-cache-dtype": KV_CACHE_DTYPE.get(options.kv_cache_dtype),
        "kv-offloading-size": _gib(options.kv_host_offload),
        "speculative-config": _speculative(options.speculative),
        "tensor-parallel-size": options.tensor_parallel,
        "pipeline-parallel-size": options.pipeline_parallel,
    }
    caching = "enable-prefix-caching" if options.prefix_caching else "no-enable-prefix-caching"
    switches = [
        caching,
        "no-trust-remote-code",
        "disable-uvicorn-access-log",
        "disable-fastapi-docs",
    ]
    return [
        *(f"--{name}={value}" for name, value in chosen.items() if value is not None),
        *(f"--{name}" for name in switches),
        *(_argument(name, value) for name, value in options.engine_args),
    ]


def _quantization(wanted: str) -> str | None:
    if wanted == "none":
        return None
    if wanted not in QUANTIZATION:
        raise InvalidOptions(
            f"quantization {wanted}: vLLM quantises to fp8 only while it loads; give a checkpoint "
            f"that is {wanted} already (AWQ, GPTQ, compressed-tensors) and quantization none"
        )
    return QUANTIZATION[wanted]


def _gib(size: int | None) -> float | None:
    return None if size is None else size / GIB


def _speculative(wanted: Speculative | None) -> str | None:
    """https://docs.vllm.ai/en/stable/features/spec_decode/"""
    if wanted is None:
        return None
    config: dict[str, object] = {"num_speculative_tokens": wanted.tokens}
    if wanted.model:
        config |= {"method": "draft_model", "model": str(find_safetensors(wanted.model))}
    else:
        config |= {"method": "ngram", "prompt_lookup_max": NGRAM_WINDOW}
    return json.dumps(config, sort_keys=True)


def _argument(name: str, value: str) -> str:
    """A user's own `name=value` as a flag; switches take true or false. Raises InvalidOptions."""
    name = name.replace("_", "-")
    if _reserved(name):
        raise InvalidOptions(
            f"engine argument {name!r} is set or refused by Overspill; remove it, or use its own "
            "field"
        )
    if value in ("true", "false"):
        return f"--{name}" if value == "true" else f"--no-{name}"
    return f"--{name}={value}"


def _reserved(name: str) -> bool:
    """Whether vLLM could take `name` for a reserved argument.

    Its parser takes unique beginnings of a name for the name, `no-` before it, and a dot after it
    for a part of it.
    """
    stem = name.partition(".")[0].removeprefix("no-")
    return any(reserved.startswith(stem) for reserved in RESERVED)


_USAGE = re.compile(r"error: (.+)")
_NO_MEMORY = re.compile(
    r"((?:CUDA|HIP|XPU) out of memory\b.*"
    r"|No available memory for the cache blocks.*"
    r"|To serve at least one request with the model's max seq len.*"
    r"|Free memory on device .* is less than desired.*"
    r"|Available KV cache memory .* is .*than.*)"
)
# The last line of a traceback; the outer ones only say that an inner one was.
_EXCEPTION = re.compile(r"(?:^|\s)((?:[\w.]+\.)?\w+(?:Error|Exception): .+)")
_HOLLOW = re.compile(r"Engine core initialization failed|WorkerProc initialization failed")


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    found = (pattern.search(line) for line in lines)
    return next((match[1].strip() for match in found if match), None)


def _cause(lines: Sequence[str]) -> str:
    """The first exception's own line, else the last line."""
    told = [line for line in lines if not _HOLLOW.search(line)]
    return _first(_EXCEPTION, told) or (lines[-1] if lines else "it wrote nothing")
