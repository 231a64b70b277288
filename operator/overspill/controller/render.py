"""From a service to the objects that should exist. Pure."""

from overspill.api.service import InferenceService
from overspill.controller.facts import Object
from overspill.controller.settings import Settings
from overspill.runtimes import RenderContext, runtime_of


def children(
    service: InferenceService, settings: Settings, *, replicas: int | None, unplaceable: int
) -> dict[str, Object]:
    """Return the children by kind, in the order in which they are applied.

    :param replicas: only for a Deployment that does not exist yet; else the count is the
        autoscaler's and left out.
    :param unplaceable: pods that cannot be placed now.
    :raises RenderError: when the service cannot be turned into objects.
    """
    context = RenderContext(
        engine_image=settings.engine_image,
        pull_policy=settings.pull_policy,
        release_namespace=settings.namespace,
        scrape_namespaces=settings.scrape_namespaces,
        replicas=replicas,
        unplaceable=unplaceable,
    )
    return {obj["kind"]: obj for obj in runtime_of(service).render(service, context)}
