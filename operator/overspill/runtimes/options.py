"""The options of our own engine images: environment variables that ``overspill.engine`` reads."""

import json

from overspill.api.names import DEFAULT_METRICS_PATH, ENGINE_PORT
from overspill.api.service import InferenceService
from overspill.api.values import parse_quantity
from overspill.runtimes.base import (
    Object,
    RenderContext,
    cpu_threads,
    drain_seconds,
    environment,
)
from overspill.runtimes.storage import draft_path, model_path


def image_values(
    service: InferenceService, context: RenderContext, image: str, defaults: dict[str, str]
) -> Object:
    """Return the template values of a replica that runs one of our engine images.

    :param defaults: variables that a user's own may replace.
    """
    own = {variable.name: variable.value for variable in service.spec.engine.env}
    return {
        "image": image,
        "command": ["overspill-engine", "serve"],
        "args": [],
        "env": environment({**defaults, **own, **_options(service, context)}),
        "port": ENGINE_PORT,
        "startup_path": "/health",
        "readiness_path": "/health",
        "drain": None,  # the image drains by itself
        "metrics_path": DEFAULT_METRICS_PATH,
    }


def _options(service: InferenceService, context: RenderContext) -> dict[str, object]:
    """Return the engine's options; one that is not set is None."""
    engine, cache = service.spec.engine, service.spec.engine.kv_cache
    options = {
        "MODEL_PATH": model_path(service.spec.model),
        "SERVED_NAME": service.served_name,
        "PORT": ENGINE_PORT,
        "CONTEXT_LENGTH": service.spec.model.context_length,
        "MAX_SEQUENCES": service.max_sequences,
        "MAX_BATCHED_TOKENS": engine.batching.max_batched_tokens,
        "QUANTIZATION": _unless(engine.quantization, "none"),
        "KV_CACHE_DTYPE": _unless(cache.dtype, "auto"),
        "PREFIX_CACHING": "true" if cache.prefix_caching else "false",
        "KV_HOST_OFFLOAD": _bytes(cache.host_offload),
        "SPECULATIVE": _speculative(service),
        "TENSOR_PARALLEL": _unless(engine.parallelism.tensor, 1),
        "PIPELINE_PARALLEL": _unless(engine.parallelism.pipeline, 1),
        **_accelerator(service, context),
        "CPU_THREADS": cpu_threads(service),
        "DRAIN_SECONDS": drain_seconds(service),
        "ENGINE_ARGS": json.dumps(engine.args) if engine.args else None,
    }
    return {f"OVERSPILL_{name}": value for name, value in options.items()}


def _unless(value: object, default: object) -> object:
    return None if value == default else value


def _bytes(quantity: str | None) -> int | None:
    return int(parse_quantity(quantity)) if quantity else None


def _speculative(service: InferenceService) -> str | None:
    wanted = service.spec.engine.speculative
    if wanted is None:
        return None
    options: Object = {"method": wanted.method, "tokens": wanted.tokens}
    path = draft_path(service)
    return json.dumps(options | ({"model": path} if path else {}))


def _accelerator(service: InferenceService, context: RenderContext) -> dict[str, object]:
    """Return what the fit of the model is judged by; the field wins over the nodes' labels."""
    wanted = service.spec.resources.accelerator
    if wanted is None:
        return {}
    return {
        "ACCELERATOR": wanted.product or wanted.resource,
        "ACCELERATOR_COUNT": wanted.count,
        "ACCELERATOR_MEMORY": _bytes(wanted.memory) or context.accelerator_memory,
    }
