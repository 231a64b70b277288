"""Images without a registry: the pods' pause image, and archives that the user loads."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from localcluster import layout
from localcluster.components import accepts, ctr
from localcluster.progress import ClusterError, run

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def descriptor(kind: str, content: bytes) -> dict[str, object]:
    """An OCI descriptor of a blob."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of name → (content, mode), the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def single_program_image(name: str, program: bytes, architecture: str) -> bytes:
    """An OCI archive of an image with one static program, `/pause`.

    Layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
    """
    layer = tar({"pause": (program, 0o755)})
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config_blob),
        "layers": [descriptor(LAYER, layer)],
    }
    manifest_blob = json.dumps(manifest).encode()
    entry = descriptor(MANIFEST, manifest_blob) | {
        "annotations": {"io.containerd.image.name": name},
        "platform": {"architecture": architecture, "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    files = {
        "oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644),
        "index.json": (json.dumps(index).encode(), 0o644),
    }
    for blob in (layer, config_blob, manifest_blob):
        files[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] = (blob, 0o644)
    return tar(files)


def ensure_pause() -> None:
    """Compile and import the pause image unless containerd has it."""
    if layout.PAUSE_IMAGE in run(ctr("images", "ls", "-q")).split():
        return
    source, binary = layout.TOOL / "pause/pause.c", layout.STATE / "pause"
    run(["cc", "-Os", "-static", "-s", "-o", binary, source])
    machine = platform.machine()
    content = single_program_image(
        layout.PAUSE_IMAGE, binary.read_bytes(), ARCHITECTURES.get(machine, machine)
    )
    archive = layout.STATE / "pause.tar"
    archive.write_bytes(content)
    load(archive)


def load(archive: Path) -> None:
    """Import an OCI or Docker archive, so that pods can use its images."""
    if not archive.is_file():
        raise ClusterError(f"{archive} is not a file: give an OCI or Docker archive")
    if not accepts(layout.CONTAINERD_SOCKET):
        raise ClusterError("the cluster does not run: start it with `up`")
    run(ctr("images", "import", str(archive.resolve())), timeout=600)
