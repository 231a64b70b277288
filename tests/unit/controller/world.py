"""Objects as the API server hands them out, for the controller's tests."""

from typing import Any

from overspill.api.names import AUTOSCALER_MANAGER, OPERATOR_MANAGER
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.controller.facts import Facts, Pod, ProviderFacts, Scaling
from overspill.controller.observe import CHILDREN
from overspill.controller.settings import Settings

SETTINGS = Settings(
    namespace="overspill-system", engine_image="engine:1", engine_gpu_image="gpu:1", identity="me"
)
IMAGE = "registry.example/models/qwen3:q4"
Object = dict[str, Any]


def service(status: Any = None, generation: int = 1, **spec: Any) -> InferenceService:
    metadata = {"name": "chat", "namespace": "team-a", "uid": "u1", "generation": generation}
    spec = {"model": {"uri": f"oci://{IMAGE}"}, **spec}
    return InferenceService.parse(
        {"metadata": metadata, "spec": spec, "status": status or {}}, unknown="forbid"
    )


def provider(namespace: str = "team-a", **spec: Any) -> InferenceProvider:
    metadata = {"name": "openai", "namespace": namespace, "uid": "u2", "generation": 1}
    price = {"inputPerMTok": "1", "outputPerMTok": "2"}
    default = {
        "type": "openai",
        "secretRef": {"name": "key"},
        "models": [{"name": "gpt", "price": price}, {"name": "free"}],
    }
    return InferenceProvider.parse(
        {"metadata": metadata, "spec": {**default, **spec}}, unknown="forbid"
    )


def runtime(**spec: Any) -> InferenceRuntime:
    metadata = {"name": "mine", "namespace": "team-a", "uid": "u3", "generation": 1}
    spec = {"image": "registry.example/mine:1", "args": ["--model", "$(MODEL_PATH)"], **spec}
    return InferenceRuntime.parse({"metadata": metadata, "spec": spec}, unknown="forbid")


def facts(
    subject: InferenceService | None = None,
    *,
    desired: int = 1,
    pods: tuple[Pod, ...] = (),
    children: dict[str, Object | None] | None = None,
    **others: Any,
) -> Facts:
    given = {
        "scaling": Scaling(desired, reason="Active", decided=desired),
        "server_version": (1, 37),
        "providers": {},
        **others,
    }
    return Facts(
        service=subject or service(),
        children={**dict.fromkeys(CHILDREN), **(children or {})},
        pods=pods,
        **given,
    )


READY = Pod("ready", placed=True, ready=True)
STARTING = Pod("starting", placed=True, starting=True)
BROKEN = Pod("broken", placed=True)
USABLE = ProviderFacts(provider(), reported=True, ready=True, reason="Ready")


def spilling(*when: str, **more: Any) -> InferenceService:
    """A service that lists one provider."""
    spillover = {"providers": [{"name": "openai", "model": "gpt"}], **more}
    return service(spillover={**spillover, **({"when": list(when)} if when else {})})


def managed(obj: Object, *, operator: bool = True, scale: bool = False) -> Object:
    """Add what a server-side apply of the object by our managers leaves behind."""
    entries = []
    if operator:
        fields = fields_v1({k: v for k, v in obj.items() if k not in ("apiVersion", "kind")})
        fields["f:metadata"].pop("f:name", None)
        fields["f:metadata"].pop("f:namespace", None)
        entries.append({"manager": OPERATOR_MANAGER, "operation": "Apply", "fieldsV1": fields})
    if scale:
        entries.append(
            {
                "manager": AUTOSCALER_MANAGER,
                "operation": "Apply",
                "subresource": "scale",
                "fieldsV1": {"f:spec": {"f:replicas": {}}},
            }
        )
    metadata = {**obj["metadata"], "resourceVersion": "7", "managedFields": entries}
    return {**obj, "metadata": metadata}


def fields_v1(value: Any) -> Any:
    """Return FieldsV1 of a value; lists count as atomic."""
    if isinstance(value, dict) and value:
        return {f"f:{name}": fields_v1(inner) for name, inner in value.items()}
    return {}
