"""The cluster's certificates, made with the openssl command, new for each new cluster."""

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster import layout
from localcluster.progress import run

DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """A certificate to make. `organization` is a Kubernetes group, `name` a user."""

    file: str
    name: str
    organization: str = ""
    hosts: str = ""  # subjectAltName of a server
    authority: str = "ca"


SERVER_HOSTS = (
    f"IP:{layout.NODE_ADDRESS},IP:{layout.API_SERVICE_ADDRESS},IP:127.0.0.1,DNS:localhost,"
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
    "DNS:kubernetes.default.svc.cluster.local"
)
CERTIFICATES = (
    Certificate("apiserver", "kube-apiserver", hosts=SERVER_HOSTS),
    Certificate("apiserver-kubelet-client", "kube-apiserver", "system:masters"),
    Certificate("kubelet-server", layout.NODE, hosts=f"IP:{layout.NODE_ADDRESS},DNS:{layout.NODE}"),
    Certificate("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
    Certificate("admin", "overspill-admin", "system:masters"),
    Certificate("controller-manager", "system:kube-controller-manager"),
    Certificate("scheduler", "system:kube-scheduler"),
    Certificate("kubelet", f"system:node:{layout.NODE}", "system:nodes"),
    Certificate("kube-proxy", "system:kube-proxy"),
    Certificate("coredns", "system:coredns"),
)
USERS = ("admin", "controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns")


def request(folder: Path, file: str, subject: str) -> list[str]:
    """The openssl command for a new key and certificate; an authority's unless more is added."""
    return [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-noenc", "-days", DAYS, "-subj", subject),
        *("-keyout", f"{folder}/{file}.key", "-out", f"{folder}/{file}.crt"),
    ]


def issue(folder: Path, certificate: Certificate) -> None:
    """Make one certificate and its key."""
    organization = f"/O={certificate.organization}" if certificate.organization else ""
    usage = "serverAuth" if certificate.hosts else "clientAuth"
    authority = folder / certificate.authority
    command = request(folder, certificate.file, f"{organization}/CN={certificate.name}")
    command += ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-addext", f"extendedKeyUsage={usage}"]
    if certificate.hosts:
        command += ["-addext", f"subjectAltName={certificate.hosts}"]
    run(command)


def ensure() -> None:
    """Make all certificates, keys and kubeconfigs of a new cluster; nothing if they are there."""
    if layout.PKI.exists():
        return
    scratch = layout.STATE / "pki.new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    for authority in ("ca", "front-proxy-ca"):
        run(request(scratch, authority, f"/CN=overspill-{authority}"))
    for certificate in CERTIFICATES:
        issue(scratch, certificate)
    run(["openssl", "genrsa", "-out", f"{scratch}/service-account.key", "2048"])
    scratch.rename(layout.PKI)


def encoded(file: str) -> str:
    """A file of the PKI as a kubeconfig embeds it."""
    return base64.b64encode((layout.PKI / file).read_bytes()).decode()


def kubeconfig(user: str) -> str:
    """A kubeconfig (JSON, which is YAML too) for one of the users."""
    cluster = {
        "server": f"https://{layout.NODE_ADDRESS}:6443",
        "certificate-authority-data": encoded("ca.crt"),
    }
    keys = {
        "client-certificate-data": encoded(f"{user}.crt"),
        "client-key-data": encoded(f"{user}.key"),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "overspill-local", "cluster": cluster}],
        "users": [{"name": user, "user": keys}],
        "contexts": [
            {"name": "overspill-local", "context": {"cluster": "overspill-local", "user": user}}
        ],
        "current-context": "overspill-local",
    }
    return json.dumps(content, indent=2) + "\n"


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner may read, replacing it in one step."""
    scratch = file.with_suffix(".tmp")
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)
    scratch.write_text(content)
    scratch.replace(file)


def write_kubeconfigs() -> None:
    """Write the kubeconfigs of all parts, and the user's in this checkout."""
    for user in USERS:
        write_private(layout.KUBECONFIGS / f"{user}.conf", kubeconfig(user))
    layout.USER_KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
    write_private(layout.USER_KUBECONFIG, kubeconfig("admin"))
