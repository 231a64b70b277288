"""vLLM: the engine for GPUs, in the image ``engine-gpu``."""

from overspill.api.engine import Quantization
from overspill.api.service import InferenceService
from overspill.runtimes.base import CACHE_HOME, CACHE_VARIABLES, Object, RenderContext
from overspill.runtimes.options import image_values

# Compiled kernels and graphs; the root is read-only.
_CACHES = {
    **CACHE_VARIABLES,
    "VLLM_CACHE_ROOT": f"{CACHE_HOME}/vllm",
    "VLLM_CONFIG_ROOT": f"{CACHE_HOME}/vllm-config",
    "TRITON_CACHE_DIR": f"{CACHE_HOME}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_HOME}/inductor",
}


class Vllm:
    """Renders services for ``overspill-engine serve`` with vLLM."""

    name = "vllm"

    def unsupported(self, service: InferenceService) -> list[str]:
        """Return the options that vLLM lacks."""
        quantization = service.spec.engine.quantization
        if quantization in (Quantization.NONE, Quantization.FP8):
            return []
        return [
            f"engine.quantization {quantization}: vLLM quantises to fp8 only while it loads; give "
            "a checkpoint that is quantised already (AWQ, GPTQ or compressed-tensors) and leave "
            "quantization none"
        ]

    def incompatible(self, service: InferenceService) -> str:
        """Return why vLLM cannot load the model, "" where its name does not say."""
        if not service.spec.model.uri.endswith(".gguf"):
            return ""
        return (
            "vLLM loads folders of safetensors; name one, or set engine.runtime to llamacpp for "
            "a GGUF file"
        )

    def values(self, service: InferenceService, context: RenderContext) -> Object:
        """Return the template values."""
        # Up to an hour: hundreds of gigabytes of weights, then compiling.
        own = {"startup_failures": 1800, "cache_mount": CACHE_HOME}
        return image_values(service, context, context.engine_gpu_image, _CACHES) | own
