"""Overspill installed by its chart, a client's key, and a second model server as the cloud."""

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from lab.kube import ROOT, Kube
from lab.load import Client
from overspill.cli.trial import objects

RELEASE = "overspill"
NAMESPACE = "overspill-system"
CLOUD = "cloud"  # the provider's name, and the namespace of the stand-in
CLOUD_MODEL = "frontier"
OPENAI_MODEL = "gpt-5.2"
OPENAI_HOST = "api.openai.com"
SECRET = "cloud-key"
KEY_PREFIX = "sk-lab-"  # of the stand-in's
PACED = "paced"  # the InferenceRuntime of the engine that computes nothing
HOSTS = "overspill.dev/provider-hosts"
PRICE = objects.PRICE  # of GPT-5.2, as `overspill try` counts its stand-in
CLOUD_HOST = f"model-server.{CLOUD}.svc.cluster.local:8000"
MODEL = "localhost/overspill/models/smollm2-135m:q4_1"
NODE_PORT = 30080
LOCAL_GATEWAY = f"http://127.0.0.1:{NODE_PORT}"
QUEUE_BOUND = 40  # requests that may wait per service, so that a story can fill it
DOWN_WINDOW = 20  # seconds
LOCAL_BIN = "/var/lib/overspill-cluster/bin"  # kubectl and helm of `make cluster-up`

CHART = ROOT / "charts" / "overspill"

# What one engine pod may use: two pods are twice the capacity of one, also on two cores.
ENGINE_CPU = "400m"
CLOUD_CPU = "500m"
OBJECTIVE = {"ttft": {"p95": "5s"}, "itl": {"p95": "1s"}, "queueWait": {"p95": "1s"}}


def local_kube() -> Kube:
    """The cluster of `make cluster-up`.

    :raises FileNotFoundError: when it was never started from this checkout.
    """
    kubeconfig = ROOT / "build" / "cluster" / "kubeconfig"
    if not kubeconfig.exists():
        raise FileNotFoundError(f"{kubeconfig} is not there: run make cluster-up first")
    return Kube(kubeconfig=str(kubeconfig), path=LOCAL_BIN)


def images() -> dict[str, str]:
    """Image references by part, as `hack/images.py build` wrote them."""
    return dict(json.loads((ROOT / "build" / "images.json").read_text()))


def values(**overrides: Any) -> dict[str, Any]:
    """Chart values for a lab: local images, a small Prometheus, short windows."""
    image = images()
    return {
        "image": {"registry": "localhost/overspill"},  # of the GPU engine, which is not built here
        "operator": {"image": image["operator"]},
        "gateway": {
            "image": image["gateway"],
            "replicas": 1,
            "service": {"type": "NodePort", "nodePort": NODE_PORT},
            "queueBound": QUEUE_BOUND,
            "providerSecrets": [{"namespace": CLOUD, "names": [SECRET]}],
        },
        # The image for GPUs is built on demand only, and no story runs it.
        "engine": {
            "cpu": {"image": image["engine-cpu"]},
            "gpu": {"image": image.get("engine-gpu", image["engine-cpu"])},
        },
        "prometheus": {"enabled": True, "image": image["prometheus"]},
        "autoscaler": {"interval": "2s", "upWindow": "6s", "downWindow": f"{DOWN_WINDOW}s"},
    } | overrides


def install(kube: Kube, chart_values: dict[str, Any], chart: Path = CHART) -> None:
    """Install the chart, or upgrade what is there, and wait until all of it is ready.

    The namespace of the provider's Secret comes first: the chart grants that Secret in it.
    """
    kube.apply(namespace(CLOUD))
    path = ROOT / "build" / "values.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(chart_values, indent=1))
    context = ("--kube-context", kube.context) if kube.context else ()
    kube.command(
        *("helm", "upgrade", "--install", RELEASE, str(chart)),
        *("--namespace", NAMESPACE, "--create-namespace", "--values", str(path)),
        *("--wait", "--timeout", "5m", *context),
        timeout=360,
    )


def overspill(kube: Kube, *args: str, timeout: float = 120, check: bool = True) -> str:
    """Run the `overspill` command and return what it printed."""
    program = str(ROOT / ".venv" / "bin" / "overspill")
    context = ("--context", kube.context) if kube.context else ()
    return kube.command(program, *args, *context, timeout=timeout, check=check).stdout


def create_key(kube: Kube, name: str, tenant: str) -> str:
    """Create a client's key for the services of a namespace, instead of an older one; return it."""
    overspill(kube, "keys", "revoke", name, check=False)
    text = overspill(kube, "keys", "create", name, "--tenant", tenant, "-o", "json")
    return str(json.loads(text)["key"])


def client(key: str, model: str, **options: Any) -> Client:
    """A client of the gateway by its node port."""
    return Client(url=f"{LOCAL_GATEWAY}/v1", key=key, model=model, **options)


def namespace(name: str) -> dict[str, Any]:
    """A namespace that admits only restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "overspill.dev/lab": "true"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def service(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """An InferenceService of the small test model, one GPU a replica; ``spec`` is laid over."""
    base: dict[str, Any] = {
        "model": {"uri": f"oci://{MODEL}", "contextLength": 1024},
        "engine": {"runtime": "llamacpp", "batching": {"maxSequences": 2}},
        "resources": {"accelerator": {"count": 1}, "cpu": ENGINE_CPU, "memory": "512Mi"},
    }
    merged = base | spec
    # 400m of CPU make a token in 25 to 200 ms; the default objectives are for GPUs.
    scaling = merged.get("scaling", {})
    merged["scaling"] = scaling | {"objective": OBJECTIVE | scaling.get("objective", {})}
    return {
        "apiVersion": "overspill.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": merged,
    }


def paced_runtime(rate: float, prefill: float = 0.05, boot: float = 0.0) -> dict[str, Any]:
    """The InferenceRuntime of the paced engine, which computes nothing.

    :param rate: tokens per second of one answer.
    :param prefill: seconds before its first.
    :param boot: seconds that it takes to start.
    """
    pace = {"--rate": rate, "--prefill": prefill, "--boot": boot}
    args = ["--port", "$(PORT)", "--sequences", "$(MAX_SEQUENCES)", "--name", "$(SERVED_NAME)"]
    return {
        "apiVersion": "overspill.dev/v1alpha1",
        "kind": "InferenceRuntime",
        "metadata": {"name": PACED},
        "spec": {
            "image": images()["paced-engine"],
            "args": [*args, *(str(word) for option in pace.items() for word in option)],
            "metrics": {"running": "paced_active", "waiting": "paced_pending"},
        },
    }


def _provider(allowed: list[str], spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "overspill.dev/v1alpha1",
        "kind": "InferenceProvider",
        "metadata": {"name": CLOUD, "namespace": CLOUD},
        "spec": {"secretRef": {"name": SECRET}, "allowedNamespaces": allowed} | spec,
    }


def stand_in(allowed: list[str]) -> dict[str, Any]:
    """The InferenceProvider of the stand-in cloud."""
    models = [{"name": CLOUD_MODEL, "price": PRICE}]
    base_url = f"http://{CLOUD_HOST}/v1"
    spec = {"type": "openai-compatible", "baseURL": base_url, "insecure": True, "models": models}
    return _provider(allowed, spec)


def openai(allowed: list[str]) -> dict[str, Any]:
    """The InferenceProvider of the real OpenAI."""
    return _provider(
        allowed, {"type": "openai", "models": [{"name": OPENAI_MODEL, "price": PRICE}]}
    )


def spillover(when: list[str], model: str = CLOUD_MODEL, **more: Any) -> dict[str, Any]:
    """The spillover of a service towards the cloud."""
    target = {"name": CLOUD, "namespace": CLOUD, "model": model}
    return {"when": when, "providers": [target]} | more


def _secret(key: str, host: str) -> dict[str, Any]:
    # The gateway sends a key only to hosts that its own Secret names.
    metadata = {"name": SECRET, "namespace": CLOUD, "annotations": {HOSTS: host}}
    data = {"api-key": key}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def cloud_key(kube: Kube) -> str:
    """The cloud's key, "" before there is one."""
    known = kube.get("secret", SECRET, CLOUD)
    return base64.b64decode(known["data"]["api-key"]).decode() if known else ""


def _stand_in_key(kube: Kube) -> str:
    """The stand-in's key: the one that it has, or a new one. A real provider's is never kept."""
    key = cloud_key(kube)
    return key if key.startswith(KEY_PREFIX) else KEY_PREFIX + secrets.token_hex(16)


def _cloud_server(image: str, key: str) -> list[dict[str, Any]]:
    here = Path(__file__).parent
    text = (here / "cloud.json").read_text().replace("$IMAGE", image).replace("$MODEL", MODEL)
    # Another key is another pod: a server reads its key when it starts.
    text = text.replace("$CHECKSUM", hashlib.sha256(key.encode()).hexdigest()[:16])
    program = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "model-server", "namespace": CLOUD},
        "data": {"cloud_server.py": (here / "cloud_server.py").read_text()},
    }
    return [program, *json.loads(text.replace("$CPU", CLOUD_CPU))["items"]]


def start_cloud(kube: Kube, allowed: list[str]) -> None:
    """Run a second model server in a namespace of its own, with a key, as the cloud.

    It speaks the OpenAI API and is not ours to scale: to Overspill it is a provider like
    any other. The key is made here and is only in that namespace's Secret.
    """
    key = _stand_in_key(kube)
    kube.apply(_secret(key, CLOUD_HOST))
    kube.apply(*_cloud_server(images()["engine-cpu"], key))
    kube.kubectl("rollout", "status", "deployment/model-server", "-n", CLOUD, "--timeout=100s")
    kube.apply(stand_in(allowed))


def use_openai(kube: Kube, allowed: list[str], key: str) -> None:
    """Let the real OpenAI be the cloud; the key goes into one Secret and nowhere else."""
    kube.apply(_secret(key, OPENAI_HOST))
    kube.apply(openai(allowed))
