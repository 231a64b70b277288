"""The real KEDA beside the cluster: its operator and its adapter of external metrics.

Both run on this machine, outside of pods, as an administrator, with the flags of KEDA's own
manifests where they say how it scales; its admission webhooks, which only refuse bad input, are
left out. Built once (`hack/cluster/main.py build keda`).
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
import yaml

from lab import aggregated, programs
from lab.kube import Kube

NAMESPACE = "keda"
SOURCE = "github.com/kedacore/keda/v2"
API = aggregated.Api("external.metrics.k8s.io", "v1beta1", NAMESPACE, "keda-metrics-apiserver")
HERE = "127.0.0.1"
Ports = tuple[int, int, int, int]


@contextmanager
def running(kube: Kube, folder: Path) -> Iterator[None]:
    """Install and run KEDA for one cluster; stops and removes it afterwards.

    ScaledObjects must be gone by then: KEDA has to take its finalizer off them.

    :param folder: an empty folder for its certificates and logs.
    :raises CommandFailed: when it cannot be built or installed.
    """
    binaries, [health, grpc, adapter, metrics] = programs.built("keda"), programs.free_ports(4)
    authority = write_certificates(folder)
    with ExitStack() as stack:
        definitions = install(kube)
        stack.callback(kube.kubectl, "delete", "--timeout=100s", *definitions)
        stack.callback(kube.kubectl, "delete", "namespace", NAMESPACE, "--wait=false")
        env = environment(kube)
        ports = (health, grpc, adapter, metrics)
        for name, options in commands(kube, folder, ports).items():
            command = [str(binaries / name), *options]
            stack.enter_context(programs.process(command, env, folder / f"{name}.log"))
        for port in ports:
            programs.await_port(port)
        stack.enter_context(aggregated.registered(kube, API, adapter, authority))
        yield


def install(kube: Kube) -> list[str]:
    """Create KEDA's namespace and definitions; return the names of these."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    files = sorted((programs.source("keda", SOURCE) / "config" / "crd" / "bases").glob("*.yaml"))
    definitions = [o for p in files for o in yaml.safe_load_all(p.read_text()) if o]
    kube.apply(*definitions)
    names = [f"crd/{o['metadata']['name']}" for o in definitions]
    kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    return names


def write_certificates(folder: Path) -> trustme.CA:
    """Write what both programs show to each other and to the API server; return its authority."""
    authority = trustme.CA()
    own = authority.issue_cert(API.host, "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    own.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    key = folder / "tls.key"
    key.touch(mode=0o600)
    own.private_key_pem.write_to_path(str(key))
    return authority


def commands(kube: Kube, folder: Path, ports: Ports) -> dict[str, list[str]]:
    """Return the options of each program.

    :param ports: operator's health and its gRPC, adapter and its own metrics.
    """
    health, grpc, adapter, metrics = ports
    certificates = f"--cert-dir={folder}"
    purposes = ("lister", "authentication", "authorization")
    login = [f"--{purpose}-kubeconfig={kube.kubeconfig}" for purpose in purposes]
    return {
        "operator": [
            certificates, "--zap-log-level=info", "--zap-time-encoding=rfc3339",
            "--enable-prometheus-metrics=false", f"--health-probe-bind-address={HERE}:{health}",
            f"--metrics-service-bind-address={HERE}:{grpc}",
        ],
        "adapter": [
            certificates, f"--client-ca-file={folder}/ca.crt", f"--tls-cert-file={folder}/tls.crt",
            f"--tls-private-key-file={folder}/tls.key", f"--bind-address={HERE}",
            f"--secure-port={adapter}", f"--port={metrics}",
            f"--metrics-service-address=localhost:{grpc}", *login,
        ],
    }  # fmt: skip


def environment(kube: Kube) -> dict[str, str]:
    """Return what makes KEDA run outside of a pod: it asks Prometheus by its cluster address."""
    kept = {k: v for k, v in kube.env.items() if not k.lower().endswith("_proxy")}
    names = {"POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE}
    return kept | names | {"WATCH_NAMESPACE": "", "HOME": os.devnull}
