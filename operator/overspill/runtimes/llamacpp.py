"""llama.cpp: the engine for CPUs and small GPUs, in the image ``engine-cpu``."""

from overspill.api.engine import CacheDtype, Quantization
from overspill.api.service import InferenceService
from overspill.runtimes.base import Object, RenderContext
from overspill.runtimes.options import image_values


class LlamaCpp:
    """Renders services for ``overspill-engine serve`` with llama.cpp."""

    name = "llamacpp"

    def unsupported(self, service: InferenceService) -> list[str]:
        """Return the options that llama.cpp lacks."""
        engine = service.spec.engine
        lacking = []
        if engine.quantization is not Quantization.NONE:
            lacking.append(
                f"engine.quantization {engine.quantization}: llama.cpp serves the weights as the "
                "GGUF file holds them; give a file of that quantization (Q8_0, Q4_K_M, …) and "
                "leave quantization none"
            )
        if engine.kv_cache.dtype is CacheDtype.FP8:
            lacking.append(
                "engine.kvCache.dtype fp8: llama.cpp has no fp8 cache; use int8, the same size"
            )
        if engine.parallelism.tensor > 1 and engine.parallelism.pipeline > 1:
            lacking.append(
                "engine.parallelism: llama.cpp splits rows (tensor) or layers (pipeline), not "
                "both; set one of them to 1"
            )
        return lacking

    def incompatible(self, service: InferenceService) -> str:
        """Return why llama.cpp cannot load the model, "" where its name does not say."""
        if not service.spec.model.uri.endswith(".safetensors"):
            return ""
        return "llama.cpp loads GGUF files only; name one, or set engine.runtime to vllm"

    def values(self, service: InferenceService, context: RenderContext) -> Object:
        """Return the template values."""
        # Up to half an hour for a cold load.
        own = {"startup_failures": 900, "cache_mount": None}
        return image_values(service, context, context.engine_image, {}) | own
