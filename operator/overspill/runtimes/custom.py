"""An engine of the user's own: an InferenceRuntime of the service's namespace.

The placeholders of its command and arguments are replaced here, once, by values that hold no
placeholder; every other ``$`` is escaped, so that the kubelet expands nothing and no argument can
reach a variable of the container.
"""

import re

from overspill.api.engine import CacheDtype, Quantization
from overspill.api.runtime import PLACEHOLDERS, InferenceRuntime
from overspill.api.service import InferenceService
from overspill.runtimes.base import (
    CACHE_HOME,
    CACHE_VARIABLES,
    PRE_STOP_SECONDS,
    Object,
    RenderContext,
    drain_seconds,
    environment,
    escape,
)
from overspill.runtimes.storage import model_path

DRAIN_PORTS = (8901, 8902)  # the second where the engine has the first
_PLACEHOLDER = re.compile(rf"\$\(({'|'.join(PLACEHOLDERS)})\)")


class Custom:
    """Renders services for the engine that an InferenceRuntime describes."""

    def __init__(self, runtime: InferenceRuntime) -> None:
        """Render for ``runtime``."""
        self.name = runtime.metadata.name
        self._spec = runtime.spec

    def unsupported(self, service: InferenceService) -> list[str]:
        """Return the options that no placeholder of the runtime carries."""
        engine = service.spec.engine
        set_ = {
            "quantization": engine.quantization is not Quantization.NONE,
            "kvCache.dtype": engine.kv_cache.dtype is not CacheDtype.AUTO,
            "kvCache.prefixCaching": not engine.kv_cache.prefix_caching,
            "kvCache.hostOffload": engine.kv_cache.host_offload is not None,
            "batching.maxBatchedTokens": engine.batching.max_batched_tokens is not None,
            "speculative": engine.speculative is not None,
            "parallelism": (engine.parallelism.tensor, engine.parallelism.pipeline) != (1, 1),
        }
        lacking = [
            f"engine.{option}: InferenceRuntime {self.name} does not take it; "
            "say it in engine.args in the engine's own words"
            for option, is_set in set_.items()
            if is_set
        ]
        return lacking + self._context_length(service)

    def _context_length(self, service: InferenceService) -> list[str]:
        used = any("$(CONTEXT_LENGTH)" in word for word in (*self._spec.command, *self._spec.args))
        given = service.spec.model.context_length is not None
        if used == given:
            return []
        why = "is required: it uses" if used else "has no effect: it does not use"
        return [
            f"model.contextLength: with InferenceRuntime {self.name} it {why} $(CONTEXT_LENGTH)"
        ]

    def incompatible(self, service: InferenceService) -> str:
        """Return "": what an engine that is not ours can load is its own business."""
        return ""

    def values(self, service: InferenceService, context: RenderContext) -> Object:
        """Return the template values."""
        spec = self._spec
        own = {v.name: v.value for v in (*spec.env, *service.spec.engine.env)}
        return {
            "image": spec.image,
            "command": self._expand(spec.command, service),
            "args": self._expand(spec.args, service)
            + [escape(a) for a in service.spec.engine.args],
            "env": environment({**CACHE_VARIABLES, **own}),
            "port": spec.port,
            "startup_path": spec.probes.startup,
            "readiness_path": spec.probes.readiness,
            "startup_failures": 1800,  # up to an hour
            "cache_mount": CACHE_HOME,
            "drain": self._drain(service),
            "metrics_path": spec.metrics.path,
        }

    def _expand(self, words: list[str], service: InferenceService) -> list[str]:
        """Return the words with the placeholders' values, in which nothing is expanded again."""
        values = {
            "MODEL_PATH": model_path(service.spec.model),
            "PORT": self._spec.port,
            "SERVED_NAME": service.served_name,
            "CONTEXT_LENGTH": service.spec.model.context_length,
            "MAX_SEQUENCES": service.max_sequences,
        }
        return [escape(_PLACEHOLDER.sub(lambda m: str(values[m[1]]), word)) for word in words]

    def _drain(self, service: InferenceService) -> Object | None:
        """Return the sidecar that holds up the end until the engine's own counts are zero."""
        metrics = self._spec.metrics
        if not metrics.running:
            return None
        port = DRAIN_PORTS[self._spec.port == DRAIN_PORTS[0]]
        url = f"http://127.0.0.1:{self._spec.port}{metrics.path}"
        command = ["overspill-engine", "drain", "--metrics", url, "--running", metrics.running]
        command += ["--waiting", metrics.waiting] if metrics.waiting else []
        options = {
            "OVERSPILL_DRAIN_SECONDS": drain_seconds(service),
            "OVERSPILL_DRAIN_DELAY": PRE_STOP_SECONDS,
        }
        return {
            "port": port,
            "command": [*command, "--port", str(port)],
            "env": environment(options),
        }
