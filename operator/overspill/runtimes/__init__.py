"""Engines: one template and one small module each, which turn a service into Kubernetes objects.

Everything here is pure: a service and a :class:`RenderContext` in, plain objects out.
"""

from overspill.api.service import InferenceService
from overspill.api.service import Runtime as RuntimeName
from overspill.runtimes.base import RenderContext, Runtime, child_name
from overspill.runtimes.llamacpp import LlamaCpp
from overspill.runtimes.templating import RenderError

_RUNTIMES: dict[RuntimeName, Runtime] = {RuntimeName.LLAMACPP: LlamaCpp()}


def runtime_of(service: InferenceService) -> Runtime:
    """Return the engine that a service asks for."""
    return _RUNTIMES[service.spec.engine.runtime]


__all__ = ["RenderContext", "RenderError", "Runtime", "child_name", "runtime_of"]
