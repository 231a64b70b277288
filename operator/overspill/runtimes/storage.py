"""Where a replica finds its model: a volume that has it, or a folder that a loader fills."""

import hashlib
from urllib.parse import urlsplit

from overspill.api.model import ModelSpec
from overspill.api.names import ENGINE_PORT
from overspill.api.service import InferenceService
from overspill.runtimes.base import Object, environment

MODEL_MOUNT = "/model"
CACHE_MOUNT = "/models"  # of loaded models, each in a folder of its own
DRAFT_MOUNT = "/draft"


def storage_values(service: InferenceService, pull_policy: str) -> Object:
    """Return the template values of the model's and the draft model's volumes, and of the loader.

    :param pull_policy: of image volumes.
    """
    model, speculative = service.spec.model, service.spec.engine.speculative
    values: Object = {"draft_volume": None, "draft_mount": DRAFT_MOUNT}
    if speculative and speculative.draft_model:
        uri = speculative.draft_model.uri
        values["draft_volume"] = _volume("draft", uri, pull_policy)
    if model.loaded:
        volume = _cache(model)
        loader = {"loader": _loader(service), "model_mount": CACHE_MOUNT}
        return values | loader | {"volume": volume}
    volume = _volume("model", model.uri, pull_policy)
    return values | {"loader": None, "model_mount": MODEL_MOUNT, "volume": volume}


def model_path(model: ModelSpec) -> str:
    """Return the path at which the engine finds its model."""
    if model.loaded:
        return f"{_folder(model)}/{model.file_name}".rstrip("/")
    return _path(model.uri, MODEL_MOUNT)


def draft_path(service: InferenceService) -> str:
    """Return the path of the draft model, "" without one."""
    speculative = service.spec.engine.speculative
    if not speculative or not speculative.draft_model:
        return ""
    return _path(speculative.draft_model.uri, DRAFT_MOUNT)


def _volume(name: str, uri: str, pull_policy: str) -> Object:
    """Return the pod's volume of that name with a model.

    Image volumes: https://kubernetes.io/docs/tasks/configure-pod-container/image-volumes/

    :param uri: ``oci://reference`` or ``pvc://claim[/path]``.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "oci":
        return {"name": name, "image": {"reference": rest, "pullPolicy": pull_policy}}
    claim = {"claimName": rest.partition("/")[0], "readOnly": True}
    return {"name": name, "persistentVolumeClaim": claim}


def _path(uri: str, mount: str) -> str:
    """Return the path of the model of such a volume under its mount; an image is its root."""
    scheme, _, rest = uri.partition("://")
    path = "" if scheme == "oci" else rest.partition("/")[2]
    return f"{mount}/{path}".rstrip("/")


def _cache(model: ModelSpec) -> Object:
    if model.cache is None:
        return {"name": "model", "emptyDir": {}}
    return {"name": "model", "persistentVolumeClaim": {"claimName": model.cache.claim_name}}


def _folder(model: ModelSpec) -> str:
    """Return the model's folder on its volume: the same for the same source and digest."""
    source = "\n".join((model.uri, model.endpoint or "", model.sha256 or ""))
    return f"{CACHE_MOUNT}/{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _loader(service: InferenceService) -> Object:
    model, resources = service.spec.model, service.spec.resources
    env = environment(
        {
            "OVERSPILL_MODEL_URI": model.uri,
            "OVERSPILL_MODEL_ENDPOINT": model.endpoint,
            "OVERSPILL_MODEL_SHA256": model.sha256,
            "OVERSPILL_MODEL_CACHE": CACHE_MOUNT,
            "OVERSPILL_MODEL_FOLDER": _folder(model),
            "OVERSPILL_PORT": ENGINE_PORT,
        }
    )
    pod_uid = {"fieldRef": {"fieldPath": "metadata.uid"}}
    return {
        "env": [*env, {"name": "OVERSPILL_POD_UID", "valueFrom": pod_uid}],
        "resources": {"cpu": resources.cpu, "memory": resources.memory},
        "secret": model.secret_ref.name if model.secret_ref else None,
        "port": ENGINE_PORT,  # of its progress
        "egress_port": _source_port(model),
    }


def _source_port(model: ModelSpec) -> int:
    """Return the TCP port of the model's source."""
    url = urlsplit(model.endpoint or (model.uri if model.scheme == "https" else "https://"))
    return url.port or (80 if url.scheme == "http" else 443)
