"""What the gateway is told: the objects that a cluster would hold, as files of its folder."""

import secrets
from pathlib import Path
from typing import Any

import yaml

from overspill.api.keys import key_secret, new_key
from overspill.api.names import API_VERSION, ENGINE_PORT_NAME, LABEL_SLICE_OF
from overspill.gateway.secret import ANNOTATION_HOSTS

Object = dict[str, Any]

NAMESPACE = "default"
SERVICE = "chat"
CLOUD = "stand-in-cloud"
CLOUD_MODEL = "stand-in-for-gpt-5.2"
CLOUD_SECRET = "stand-in-key"  # noqa: S105 - its name
# GPT-5.2, US dollars per million tokens, 2026-11
PRICE = {"inputPerMTok": "1.75", "cachedInputPerMTok": "0.175", "outputPerMTok": "14"}
GPU_HOUR = "0.80"  # US dollars: what this machine counts as
SEQUENCES = 2  # that the engine computes at once
WAIT = "500ms"  # who would wait longer for one of these may leave


def write(folder: Path, engine: int, cloud: int, cloud_key: str) -> str:
    """Write all objects; return the key of the one client there is.

    :param engine: port of the engine on 127.0.0.1.
    :param cloud: port of the stand-in for a cloud.
    :param cloud_key: the key that the stand-in asks for.
    """
    key, digest = new_key()
    service(folder)
    _save(folder, "endpoints", _endpoints(engine))
    _save(folder, "provider", _provider(cloud), _cloud_secret(cloud, cloud_key))
    _save(folder, "key", {"kind": "Secret", **key_secret(NAMESPACE, "try", digest, NAMESPACE)})
    return key


def new_cloud_key() -> str:
    """Return a key for the stand-in."""
    return f"sk-stand-in-{secrets.token_hex(16)}"


def service(folder: Path, budget: str = "") -> None:
    """Write the service.

    :param budget: US dollars that it may spend at the cloud on a day (UTC); "": no limit.
    """
    spillover: Object = {"providers": [{"name": CLOUD, "model": CLOUD_MODEL}]}
    if budget:
        spillover["budget"] = {"perDay": budget}
    spec = {
        "model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"},  # not loaded by the gateway
        "engine": {"runtime": "llamacpp", "batching": {"maxSequences": SEQUENCES}},
        "cost": {"gpuHour": GPU_HOUR},
        "scaling": {"objective": {"queueWait": {"p95": WAIT}}},
        "spillover": spillover,
    }
    _save(folder, "service", _object("InferenceService", SERVICE, spec=spec))


def _endpoints(port: int) -> Object:
    return _object(
        "EndpointSlice",
        SERVICE,
        version="discovery.k8s.io/v1",
        labels={LABEL_SLICE_OF: SERVICE},
        addressType="IPv4",
        ports=[{"name": ENGINE_PORT_NAME, "port": port}],
        endpoints=[{"addresses": ["127.0.0.1"]}],
    )


def _provider(port: int) -> Object:
    spec = {
        "type": "openai-compatible",
        "baseURL": f"http://127.0.0.1:{port}/v1",
        "insecure": True,
        "secretRef": {"name": CLOUD_SECRET},
        "models": [{"name": CLOUD_MODEL, "price": PRICE}],
        "timeouts": {"firstByte": "120s"},  # both share one small machine
    }
    return _object("InferenceProvider", CLOUD, spec=spec)


def _cloud_secret(port: int, key: str) -> Object:
    found = _object("Secret", CLOUD_SECRET, version="v1", stringData={"api-key": key})
    found["metadata"]["annotations"] = {ANNOTATION_HOSTS: f"127.0.0.1:{port}"}
    return found


def _object(
    kind: str, name: str, *, version: str = API_VERSION, labels: Object | None = None, **more: Any
) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels or {}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _save(folder: Path, name: str, *found: Object) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(found, sort_keys=False))
