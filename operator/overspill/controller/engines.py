"""Whether the engine that a service asks for can run it, as far as its objects say. Pure."""

from overspill.controller.facts import Facts, Fault
from overspill.controller.reasons import Reason
from overspill.runtimes import RenderError, Runtime, runtime_of


def obstacle(facts: Facts) -> Fault | None:
    """Return what keeps a service from being rendered for its engine, None when nothing does."""
    if facts.runtime_invalid:
        name = facts.service.runtime
        return Fault(Reason.INVALID_SPEC, f"InferenceRuntime {name}: {facts.runtime_invalid}")
    try:
        engine = runtime_of(facts.service, facts.runtime)
    except RenderError as error:
        remedy = "create it in this namespace, or change engine.runtime"
        return Fault(Reason.RUNTIME_NOT_FOUND, f"{error}; {remedy}")
    return _lacking(engine, facts) or _incompatible(engine, facts)


def _lacking(engine: Runtime, facts: Facts) -> Fault | None:
    lacking = engine.unsupported(facts.service)
    return Fault(Reason.OPTION_UNSUPPORTED, "; ".join(lacking)) if lacking else None


def _incompatible(engine: Runtime, facts: Facts) -> Fault | None:
    why = engine.incompatible(facts.service)
    uri = facts.service.spec.model.uri
    return Fault(Reason.INCOMPATIBLE_MODEL, f"model.uri {uri}: {why}", model=True) if why else None
