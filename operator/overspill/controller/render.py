"""From facts to the objects that should exist. Pure."""

from overspill.controller.facts import Facts, Object
from overspill.controller.settings import Settings
from overspill.runtimes import RenderContext, render, runtime_of


def children(
    facts: Facts, settings: Settings, *, replicas: int | None, unplaceable: int
) -> dict[str, Object]:
    """Return the children by kind, in the order in which they are applied.

    :param replicas: only for a Deployment that does not exist yet; else the count is the
        autoscaler's and left out.
    :param unplaceable: pods that cannot be placed now.
    :raises RenderError: when the service cannot be turned into objects.
    """
    context = RenderContext(
        engine_image=settings.engine_image,
        engine_gpu_image=settings.engine_gpu_image,
        pull_policy=settings.pull_policy,
        release_namespace=settings.namespace,
        pull_secrets=settings.pull_secrets,
        scrape_namespaces=settings.scrape_namespaces,
        replicas=replicas,
        unplaceable=unplaceable,
        accelerator_memory=facts.accelerator_memory,
    )
    engine = runtime_of(facts.service, facts.runtime)
    return {obj["kind"]: obj for obj in render(engine, facts.service, context)}
