"""llama.cpp: the engine for CPUs and small GPUs, in the image ``engine-cpu``.

The engine's options travel as environment variables, which ``overspill.engine`` reads.
"""

import json

from overspill.api.names import ENGINE_PORT
from overspill.api.service import InferenceService
from overspill.runtimes import templating
from overspill.runtimes.base import (
    CHILD_KINDS,
    Object,
    RenderContext,
    child_name,
    common_values,
    cpu_threads,
    drain_seconds,
)


class LlamaCpp:
    """Renders services for ``overspill-engine serve``."""

    name = "llamacpp"

    def render(self, service: InferenceService, context: RenderContext) -> list[Object]:
        """Return ServiceAccount, NetworkPolicy, Service, PodDisruptionBudget, Deployment.

        :raises RenderError: when a free field of ``spec.pod`` cannot be written as YAML.
        """
        values = common_values(service, context)
        values["env"] = _env(service, values["model_path"])
        objects = templating.render("llamacpp.yaml.j2", values)
        name = child_name(service.metadata.name)
        owner = {"namespace": service.metadata.namespace, "reference": service.reference()}
        templating.check(objects, [(kind, name) for kind in CHILD_KINDS], owner)
        return objects


def _env(service: InferenceService, model_path: str) -> list[Object]:
    """Return the engine's environment; an option that is not set is left out."""
    engine = service.spec.engine
    options = {
        "MODEL_PATH": model_path,
        "SERVED_NAME": service.served_name,
        "PORT": ENGINE_PORT,
        "CONTEXT_LENGTH": service.spec.model.context_length,
        "MAX_SEQUENCES": service.max_sequences,
        "MAX_BATCHED_TOKENS": engine.batching.max_batched_tokens,
        "PREFIX_CACHING": "true" if engine.kv_cache.prefix_caching else "false",
        "CPU_THREADS": cpu_threads(service),
        "DRAIN_SECONDS": drain_seconds(service),
        "ENGINE_ARGS": json.dumps(engine.args) if engine.args else None,
    }
    # The kubelet expands $(NAME) in values and turns $$ into $.
    return [
        {"name": f"OVERSPILL_{name}", "value": str(value).replace("$", "$$")}
        for name, value in options.items()
        if value is not None
    ]
