"""The command lines of the cluster's programs, and how each shows that it is ready."""

import functools
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from localcluster import layout
from localcluster.processes import Program
from localcluster.progress import succeeds

NODE, PKI, CONFIGS = layout.NODE_ADDRESS, layout.PKI, layout.KUBECONFIGS
# Health pages carry no secrets, and controller-manager and scheduler sign their own certificates.
UNVERIFIED = ssl._create_unverified_context()


def answers(url: str) -> bool:
    """Whether a health page says 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=UNVERIFIED) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def accepts(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def program(name: str) -> str:
    """The path of one of the cluster's own binaries."""
    return str(layout.BIN / name)


def ctr(*arguments: str) -> list[str]:
    """A containerd command in the namespace of Kubernetes."""
    return [program("ctr"), "-a", str(layout.CONTAINERD_SOCKET), "-n", "k8s.io", *arguments]


def kubectl(*arguments: str) -> list[str]:
    """A kubectl command as the cluster's administrator."""
    return [program("kubectl"), f"--kubeconfig={layout.ADMIN_KUBECONFIG}", *arguments]


def etcd() -> Program:
    """The store, reachable through a unix socket only.

    A member listens for peers even where it is the only one: on loopback, which no pod reaches.
    """
    argv = (
        program("etcd"),
        f"--data-dir={layout.STATE}/etcd",
        f"--listen-client-urls=unix://{layout.ETCD_SOCKET}",
        f"--advertise-client-urls=unix://{layout.ETCD_SOCKET}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Program("etcd", argv, functools.partial(accepts, layout.ETCD_SOCKET))


def containerd() -> Program:
    """The container runtime."""
    config = layout.RENDERED / "containerd.toml"
    ready = functools.partial(succeeds, ctr("version"), 5)
    argv = (program("containerd"), f"--config={config}", "--log-level=warn")
    return Program("containerd", argv, ready, (config,))


def apiserver() -> Program:
    """The API server, on the node's address."""
    audit = layout.RENDERED / "audit-policy.yaml"
    argv = (
        program("kube-apiserver"),
        f"--advertise-address={NODE}",
        f"--bind-address={NODE}",
        "--secure-port=6443",
        f"--etcd-servers=unix://{layout.ETCD_SOCKET}",
        f"--service-cluster-ip-range={layout.SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--cert-dir={layout.STATE}",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet-client.key",
        # The node's name does not resolve on this machine.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI}/service-account.key",
        f"--service-account-signing-key-file={PKI}/service-account.key",
        f"--requestheader-client-ca-file={PKI}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={PKI}/front-proxy-client.crt",
        f"--proxy-client-key-file={PKI}/front-proxy-client.key",
        f"--audit-policy-file={audit}",
        f"--audit-log-path={layout.STATE}/audit/audit.log",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=2",
    )
    ready = functools.partial(succeeds, kubectl("get", "--raw", "/readyz"), 5)
    return Program("kube-apiserver", argv, ready, (audit, PKI / "ca.crt"), 90)


def controller_manager() -> Program:
    """The controllers; nodes get no pod ranges, since there is one node."""
    argv = (
        program("kube-controller-manager"),
        f"--kubeconfig={CONFIGS}/controller-manager.conf",
        f"--bind-address={NODE}",
        f"--cert-dir={layout.STATE}",
        f"--root-ca-file={PKI}/ca.crt",
        f"--service-account-private-key-file={PKI}/service-account.key",
        f"--cluster-signing-cert-file={PKI}/ca.crt",
        f"--cluster-signing-key-file={PKI}/ca.key",
        f"--flex-volume-plugin-dir={layout.STATE}/volume-plugins",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--profiling=false",
    )
    ready = functools.partial(answers, f"https://{NODE}:10257/healthz")
    return Program("kube-controller-manager", argv, ready, (PKI / "ca.crt",))


def scheduler() -> Program:
    """The scheduler."""
    argv = (
        program("kube-scheduler"),
        f"--kubeconfig={CONFIGS}/scheduler.conf",
        f"--bind-address={NODE}",
        f"--cert-dir={layout.STATE}",
        "--leader-elect=false",
        "--profiling=false",
    )
    ready = functools.partial(answers, f"https://{NODE}:10259/healthz")
    return Program("kube-scheduler", argv, ready, (CONFIGS / "scheduler.conf",))


def kubelet() -> Program:
    """The node's agent."""
    config = layout.RENDERED / "kubelet.yaml"
    argv = (
        program("kubelet"),
        f"--config={config}",
        f"--kubeconfig={CONFIGS}/kubelet.conf",
        f"--root-dir={layout.STATE}/kubelet",
        f"--cert-dir={layout.STATE}/kubelet/pki",
        f"--hostname-override={layout.NODE}",
        f"--node-ip={NODE}",
    )
    ready = functools.partial(answers, f"http://{NODE}:10248/healthz")
    return Program("kubelet", argv, ready, (config, CONFIGS / "kubelet.conf"))


def proxy() -> Program:
    """The service proxy."""
    config = layout.RENDERED / "kube-proxy.yaml"
    argv = (program("kube-proxy"), f"--config={config}", f"--hostname-override={layout.NODE}")
    ready = functools.partial(answers, f"http://{NODE}:10256/healthz")
    return Program("kube-proxy", argv, ready, (config, CONFIGS / "kube-proxy.conf"))


def coredns() -> Program:
    """The cluster's DNS server."""
    config = layout.RENDERED / "Corefile"
    argv = (program("coredns"), "-conf", str(config))
    ready = functools.partial(answers, f"http://{NODE}:18181/ready")
    return Program("coredns", argv, ready, (config, CONFIGS / "coredns.conf"))


def phases() -> tuple[tuple[Program, ...], ...]:
    """All programs: those of a phase start together, when the phase before is ready."""
    return (
        (etcd(), containerd()),
        (apiserver(),),
        (controller_manager(), scheduler(), kubelet(), proxy(), coredns()),
    )


PROGRAMS = frozenset(
    (
        *("etcd", "containerd", "containerd-shim-runc-v2", "coredns", "kubelet", "kube-proxy"),
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    )
)
