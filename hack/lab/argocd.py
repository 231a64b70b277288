"""The real Argo CD beside the cluster: its controller, its repo server, Redis and a git server.

All four run on this machine, outside of pods, and listen on 127.0.0.1 (but for the controller's
metrics, which know no such option). Argo CD is built once
(`hack/cluster/main.py build argocd`); Redis is Debian's, unpacked only (`make redis`).
"""

import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from lab import programs
from lab.kube import ROOT, Kube, eventually

NAMESPACE = "argocd"
SOURCE = "github.com/argoproj/argo-cd/v3"
REDIS = ROOT / "build" / "tools" / "redis"
REFRESH = "argocd.argoproj.io/refresh"


def program() -> Path:
    """Return Argo CD's one program; builds it first where it is not there yet."""
    return programs.built("argocd") / "argocd"


def manifests() -> Path:
    """Return Argo CD's own manifests, from the source of the very version that was built."""
    return programs.source("argocd", SOURCE) / "manifests"


def health(argocd: Path, obj: Path, config_map: Path) -> tuple[str, str]:
    """Return status and message that Argo CD sees in an object, by the scripts of a ConfigMap."""
    done = subprocess.run(
        [argocd, "admin", "settings", "resource-overrides", "health", obj,
         "--argocd-cm-path", config_map, "--loglevel", "error"],
        env=os.environ | {"ARGOCD_BINARY_NAME": "argocd"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    fields = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return fields["STATUS"], fields["MESSAGE"]


@dataclass
class Repository:
    """A git repository that Argo CD can read."""

    url: str
    folder: Path

    def commit(self, files: dict[str, str], message: str) -> str:
        """Write and push these files; return the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments: str) -> str:
        """Run git here, without the caller's own configuration."""
        identity = ("-c", "user.name=lab", "-c", "user.email=lab@example.com")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.folder, env=_plain_git(),
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout


@dataclass
class ArgoCD:
    """A running Argo CD."""

    kube: Kube
    repository: Repository
    logs: Path

    def application(self, name: str) -> dict[str, Any]:
        """One Application as it is now."""
        return self.kube.get("applications.argoproj.io", name, NAMESPACE) or {}

    def state(self, name: str) -> tuple[str, str]:
        """Its sync and health status."""
        status = self.application(name).get("status", {})
        return (
            status.get("sync", {}).get("status", ""),
            status.get("health", {}).get("status", ""),
        )

    @contextmanager
    def watched(self, name: str) -> Iterator[list[tuple[str, str]]]:
        """Every sync and health status that an Application has until the block ends."""
        columns = "{.status.sync.status} {.status.health.status}{'\\n'}"
        seen: list[tuple[str, str]] = []
        command = ["kubectl", "get", "applications.argoproj.io", name, "-n", NAMESPACE, "--watch",
                   "-o", f"jsonpath={columns}"]  # fmt: skip
        with subprocess.Popen(
            command, env=self.kube.env, stdout=subprocess.PIPE, text=True
        ) as watch:
            reader = threading.Thread(target=_read_states, args=(watch.stdout, seen), daemon=True)
            reader.start()
            try:
                eventually("the watch began", lambda: bool(seen), timeout=30)
                yield seen
            finally:
                watch.terminate()
                reader.join(timeout=10)

    def refresh(self, name: str) -> None:
        """Let Argo CD look at the repository now: polling takes minutes."""
        self.kube.kubectl(
            "annotate", "applications.argoproj.io", name, "-n", NAMESPACE, "--overwrite",
            f"{REFRESH}=hard",
        )  # fmt: skip

    def tail(self) -> str:
        """The ends of the programs' logs, for the report of a failed story."""
        parts = [f"{p.name}:\n{p.read_text()[-4000:]}" for p in sorted(self.logs.glob("*.log"))]
        return "\n".join(parts)


def _read_states(stream: IO[str] | None, seen: list[tuple[str, str]]) -> None:
    for line in stream or ():
        sync, _, health = line.rstrip("\n").partition(" ")
        seen.append((sync, health))


@contextmanager
def running(kube: Kube, folder: Path) -> Iterator[ArgoCD]:
    """Install and run Argo CD for one cluster; stops and removes it afterwards.

    :param folder: an empty folder for its files and logs.
    :raises CommandFailed: when it cannot be built or installed.
    """
    argocd, redis = program(), redis_server()
    ports = dict(
        zip(
            ("git", "redis", "repo", "repo-metrics", "metrics"), programs.free_ports(5), strict=True
        )
    )
    install(kube, manifests())
    with ExitStack() as stack:
        stack.callback(uninstall, kube)
        env = environment(kube, folder)
        for name, command in commands(argocd, redis, folder, ports).items():
            as_program = {"ARGOCD_BINARY_NAME": f"argocd-{name}"}
            stack.enter_context(programs.process(command, env | as_program, folder / f"{name}.log"))
        repository = create_repository(folder, ports["git"])
        for port in ports.values():
            programs.await_port(port)
        yield ArgoCD(kube, repository, folder)


def commands(
    argocd: Path, redis: list[str], folder: Path, ports: dict[str, int]
) -> dict[str, list[str]]:
    """Return the command line of each program."""
    here = "127.0.0.1"
    base = folder / "git"
    base.mkdir()
    return {
        "git": ["git", "daemon", f"--listen={here}", f"--port={ports['git']}", "--reuseaddr",
                "--export-all", f"--base-path={base}", str(base)],
        "redis": [*redis, "--bind", here, "--port", str(ports["redis"]), "--save", "",
                  "--appendonly", "no", "--dir", str(folder)],
        "repo-server": [str(argocd), "--address", here, "--port", str(ports["repo"]),
                        "--metrics-address", here, "--metrics-port", str(ports["repo-metrics"]),
                        "--redis", f"{here}:{ports['redis']}", "--disable-tls"],
        "application-controller": [
            str(argocd), "--namespace", NAMESPACE, "--metrics-port", str(ports["metrics"]),
            "--repo-server", f"{here}:{ports['repo']}", "--repo-server-plaintext",
            "--redis", f"{here}:{ports['redis']}"],
    }  # fmt: skip


def environment(kube: Kube, folder: Path) -> dict[str, str]:
    """Return what makes Argo CD run outside of a pod, with nothing of the user's own."""
    return _plain_git() | kube.env | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "ARGOCD_FAKE_IN_CLUSTER": "true",  # kubernetes.default.svc is what KUBECONFIG names
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_ASK_PASS_SOCK": str(folder / "ask-pass.sock"),
        "ARGOCD_TLS_DATA_PATH": str(folder / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(folder / "ssh"),
        "LD_LIBRARY_PATH": os.pathsep.join(str(p) for p in REDIS.glob("usr/lib/*-linux-gnu")),
    }  # fmt: skip


def _plain_git() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def redis_server() -> list[str]:
    """Return the command that runs Redis: an installed one, or Debian's, unpacked.

    Debian's redis-check-rdb is the server itself, under another name.
    """
    installed = shutil.which("redis-server")
    if installed:
        return [installed]
    subprocess.run(["make", "redis"], cwd=ROOT, check=True, timeout=300, capture_output=True)
    return [str(REDIS / "usr" / "bin" / "redis-server")]


def create_repository(folder: Path, port: int) -> Repository:
    """Make an empty repository that the git server exports, and a clone of it to commit in."""
    bare, work = folder / "git" / "models.git", folder / "work"
    work.mkdir()
    repository = Repository(f"git://127.0.0.1:{port}/models.git", work)
    repository.git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.git("remote", "add", "origin", str(bare))
    return repository


def install(kube: Kube, source: Path) -> None:
    """Create Argo CD's definitions and configuration, from its own manifests."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    config = source / "base" / "config"
    files = [source / "crds" / f"{kind}-crd.yaml" for kind in ("application", "appproject")]
    files += [p for p in sorted(config.glob("*.yaml")) if p.name != "kustomization.yaml"]
    objects = [o for p in files for o in yaml.safe_load_all(p.read_text()) if o]
    kube.apply(*objects, namespace=NAMESPACE)
    kube.patch("secret", "argocd-secret", NAMESPACE, {"stringData": {
        "server.secretkey": secrets.token_urlsafe(32),
    }})  # fmt: skip
    kube.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s",
        "crd/applications.argoproj.io", "crd/appprojects.argoproj.io",
    )  # fmt: skip
    everything = {"group": "*", "kind": "*"}
    kube.apply({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": NAMESPACE},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": [everything],
        },
    })  # fmt: skip


def uninstall(kube: Kube) -> None:
    """Remove Argo CD and its definitions; Applications go without what they applied."""
    for kind in ("applications", "appprojects"):
        for obj in kube.list(f"{kind}.argoproj.io", NAMESPACE):
            name = obj["metadata"]["name"]
            kube.patch(f"{kind}.argoproj.io", name, NAMESPACE, {"metadata": {"finalizers": None}})
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=100s")
    kube.kubectl(
        "delete", "crd", "applications.argoproj.io", "appprojects.argoproj.io",
        "--ignore-not-found", "--timeout=100s",
    )  # fmt: skip
