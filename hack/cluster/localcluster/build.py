"""Builds the cluster's programs from the Go modules in go/, once per version.

A module's binaries land in a folder that is named by a hash of everything that shapes them, by one
rename, so that an interrupted build leaves nothing that looks finished.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from localcluster import layout
from localcluster.progress import ClusterError, clock, run, say, step

GO_FLAGS = "-mod=readonly -trimpath -buildvcs=false"
BUILD_TIMEOUT = 3600  # seconds for one module, on a slow machine
COMPONENT_BASE = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """A Go module of go/ and the programs that are built from it."""

    name: str
    source: str  # the required module whose version is stamped into the programs
    packages: tuple[str, ...]  # below `source`, or "." for a main package of our own
    usual: str
    stamp: str = ""  # linker flags; {version} and {plain} (without the v) are filled in
    output: str = ""  # name of the only program, where the package's own name does not serve

    @property
    def folder(self) -> Path:
        """The folder with its go.mod."""
        return layout.TOOL / "go" / self.name


MODULES = (
    Module(
        "kubernetes",
        "k8s.io/kubernetes",
        tuple(
            f"/cmd/{program}"
            for program in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            )
        ),
        "6 min",
        stamp=(
            f"-X {COMPONENT_BASE}.gitVersion={{version}} "
            f"-X {COMPONENT_BASE}.gitMajor={{major}} -X {COMPONENT_BASE}.gitMinor={{minor}}"
        ),
    ),
    Module(
        "containerd",
        "github.com/containerd/containerd/v2",
        ("/cmd/containerd", "/cmd/containerd-shim-runc-v2", "/cmd/ctr"),
        "1 min",
        stamp="-X github.com/containerd/containerd/v2/version.Version={plain}",
    ),
    Module("etcd", "go.etcd.io/etcd/server/v3", ("",), "20 s", output="etcd"),
    Module(
        "cni",
        "github.com/containernetworking/plugins",
        ("/plugins/ipam/host-local", "/plugins/main/bridge"),
        "5 s",
    ),
    Module(
        "helm",
        "helm.sh/helm/v4",
        ("/cmd/helm",),
        "30 s",
        stamp="-X helm.sh/helm/v4/internal/version.version={version}",
    ),
    Module("coredns", "github.com/coredns/coredns", (".",), "30 s", output="coredns"),
)
# Programs that the cluster does without: built when a test asks for them.
ON_DEMAND = (
    Module(
        "argocd",
        "github.com/argoproj/argo-cd/v3",
        ("/cmd",),
        "4 min",
        stamp="-X github.com/argoproj/argo-cd/v3/common.version={plain}",
        output="argocd",
    ),
    Module(
        "keda",
        "github.com/kedacore/keda/v2",
        ("/cmd/adapter", "/cmd/operator"),
        "6 min",
        stamp="-X github.com/kedacore/keda/v2/version.Version={plain}",
    ),
)


def version(module: Module, go_mod: str) -> str:
    """The version of the module's source that its go.mod requires."""
    found = re.search(rf"{re.escape(module.source)} (v\S+)", go_mod)
    if not found:
        raise ClusterError(f"go/{module.name}/go.mod does not require {module.source}")
    return found[1]


def linker_flags(module: Module, go_mod: str) -> str:
    """Strip symbols and stamp the version."""
    number = version(module, go_mod)
    major, minor = number.removeprefix("v").split(".")[:2]
    stamp = module.stamp.format(
        version=number, plain=number.removeprefix("v"), major=major, minor=minor
    )
    return f"-s -w {stamp}".strip()


def key(module: Module) -> str:
    """A hash of the sources, the flags and the machine's architecture."""
    digest = hashlib.sha256(platform.machine().encode())
    for file in sorted(module.folder.iterdir()):
        if file.suffix in (".mod", ".sum", ".go"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    flags = linker_flags(module, (module.folder / "go.mod").read_text())
    digest.update(f"{flags} {GO_FLAGS} {module.packages} {module.output}".encode())
    return digest.hexdigest()[:16]


def target(module: Module) -> Path:
    """Where the module's programs are kept."""
    return layout.CACHE / f"{module.name}-{key(module)}"


def missing() -> list[Module]:
    """The modules that have to be built."""
    return [module for module in MODULES if not target(module).is_dir()]


def check_go() -> None:
    """Raise ClusterError unless a Go toolchain is there that can build the modules."""
    if not shutil.which("go"):
        raise ClusterError("Go is not installed: install Go 1.26 or newer and put it on PATH")
    found = re.match(r"go(\d+)\.(\d+)", run(["go", "env", "GOVERSION"], cwd=MODULES[0].folder))
    if found and (int(found[1]), int(found[2])) < (1, 26):
        raise ClusterError(f"Go {found[1]}.{found[2]} is too old: install Go 1.26 or newer")


def go_environment() -> dict[str, str]:
    """The caller's environment without what would change the result."""
    kept = {k: v for k, v in os.environ.items() if k not in ("GOOS", "GOARCH", "GOEXPERIMENT")}
    return kept | {"CGO_ENABLED": "0", "GOFLAGS": GO_FLAGS, "GOWORK": "off"}


def compile_module(module: Module, folder: Path) -> None:
    """Run `go build` into `folder`, with a line a minute to show that it lives."""
    packages = [p if p == "." else module.source + p for p in module.packages]
    flags = linker_flags(module, (module.folder / "go.mod").read_text())
    output = folder / module.output if module.output else f"{folder}/"
    log = layout.CACHE / f"{module.name}.log"
    with log.open("w") as stream:
        child = subprocess.Popen(
            ["go", "build", "-ldflags", flags, "-o", str(output), *packages],
            cwd=module.folder,
            env=go_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
        try:
            code = await_child(child, module.name)
        finally:
            child.kill()
    if code:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise ClusterError(f"building {module.name} failed (whole log: {log}):\n{tail}")


def await_child(child: "subprocess.Popen[bytes]", name: str) -> int:
    """Wait for a build to end and return its exit status."""
    began = time.monotonic()
    while time.monotonic() - began < BUILD_TIMEOUT:
        try:
            return child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            say(f"  {name} still building after {clock(time.monotonic() - began)}")
    raise ClusterError(f"building {name} took longer than {BUILD_TIMEOUT // 60} min")


def build(module: Module) -> None:
    """Build one module into its folder of the cache, or leave no trace."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=layout.CACHE))
    try:
        compile_module(module, scratch)
        scratch.chmod(0o755)
        scratch.rename(target(module))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def ensure() -> Path:
    """Build what is missing and return a folder with a link to every program."""
    build_all(missing())
    return link_programs()


def ensure_one(name: str) -> Path:
    """Build one module of ON_DEMAND unless it is there, and return the folder of its programs."""
    module = next(m for m in ON_DEMAND if m.name == name)
    if not target(module).is_dir():
        build_all([module])
    return target(module)


def build_all(todo: list[Module]) -> None:
    """Build these modules, one after the other."""
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    if todo:
        check_go()
    for module in todo:
        with step(f"build {module.name}", module.usual):
            build(module)


def link_programs() -> Path:
    """A folder `<key>/bin` with links to the programs of this very set of versions."""
    overall = hashlib.sha256("".join(key(m) for m in MODULES).encode()).hexdigest()[:16]
    folder = layout.CACHE / overall / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        for program in target(module).iterdir():
            link = folder / program.name
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return folder
