"""Engines: one small module each, which turns a service into the values of the one template.

Everything here is pure: a service and a :class:`RenderContext` in, plain objects out.
"""

from overspill.api.engine import LLAMACPP, VLLM
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.runtimes.base import RenderContext, Runtime, child_name
from overspill.runtimes.custom import Custom
from overspill.runtimes.llamacpp import LlamaCpp
from overspill.runtimes.render import render
from overspill.runtimes.templating import RenderError
from overspill.runtimes.vllm import Vllm

_BUNDLED: dict[str, Runtime] = {LLAMACPP: LlamaCpp(), VLLM: Vllm()}


def runtime_of(service: InferenceService, custom: InferenceRuntime | None = None) -> Runtime:
    """Return the engine that a service asks for.

    :param custom: the InferenceRuntime that the service names, where it names one.
    :raises RenderError: when it names one and there is none.
    """
    bundled = _BUNDLED.get(service.runtime)
    if bundled:
        return bundled
    if custom is None:
        raise RenderError(f"engine.runtime: there is no InferenceRuntime {service.runtime}")
    return Custom(custom)


__all__ = ["RenderContext", "RenderError", "Runtime", "child_name", "render", "runtime_of"]
