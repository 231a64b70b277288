"""From a service and its engine to checked objects."""

from overspill.api import names
from overspill.api.service import InferenceService
from overspill.runtimes import templating
from overspill.runtimes.base import (
    CHILD_KINDS,
    Object,
    RenderContext,
    Runtime,
    child_name,
    common_values,
)
from overspill.runtimes.storage import storage_values


def render(runtime: Runtime, service: InferenceService, context: RenderContext) -> list[Object]:
    """Return ServiceAccount, NetworkPolicy, Service, PodDisruptionBudget, Deployment.

    :raises RenderError: when a free field of ``spec.pod`` cannot be written as YAML.
    """
    values = {
        **common_values(service, context),
        **storage_values(service, context.pull_policy),
        **runtime.values(service, context),
    }
    if values["metrics_path"] != names.DEFAULT_METRICS_PATH:
        values["pod_annotations"][names.ANNOTATION_METRICS_PATH] = values["metrics_path"]
    objects = templating.render("engine.yaml.j2", values)
    name = child_name(service.metadata.name)
    owner = {"namespace": service.metadata.namespace, "reference": service.reference()}
    templating.check(objects, [(kind, name) for kind in CHILD_KINDS], owner)
    if context.replicas is not None:
        # Not by the template: with and without its count a new service is rendered once.
        deployment = next(obj for obj in objects if obj["kind"] == "Deployment")
        deployment["spec"] = {"replicas": context.replicas, **deployment["spec"]}
    return objects
