"""What an image holds, read from its layers: the files, the packages, and a CycloneDX bill of them.

    python3 hack/sbom.py ARCHIVE > sbom.cdx.json

ARCHIVE is an OCI archive. Read are Debian's list of installed packages and the metadata of
Python's; what a package carries inside (llama.cpp in xllamacpp) has no entry of its own. The same
image gives the same text, byte by byte. https://cyclonedx.org/docs/1.6/json/
"""

import gzip
import json
import re
import sys
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

Json = dict[str, Any]

DPKG = "var/lib/dpkg/status"
WHEEL = re.compile(r"\.dist-info/METADATA$")
# https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
EXECUTABLE = 0o111


@dataclass(frozen=True, order=True)
class Package:
    """One package, as its manager names it."""

    kind: str  # deb | pypi | generic (our own)
    name: str
    version: str
    architecture: str = ""
    licence: str = ""  # an SPDX expression; "" where the metadata has none

    @property
    def purl(self) -> str:
        """Its package URL: https://github.com/package-url/purl-spec."""
        owner = "debian/" if self.kind == "deb" else ""
        arch = f"?arch={self.architecture}" if self.architecture else ""
        return f"pkg:{self.kind}/{owner}{self.name}@{quote(self.version, safe='')}{arch}"


@dataclass
class Contents:
    """An image: its digest, its files by path with their modes, and its packages."""

    digest: str
    files: dict[str, int] = field(default_factory=dict)
    packages: set[Package] = field(default_factory=set)

    def programs(self) -> list[str]:
        """Paths of what can be run by name."""
        folders = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "app/overspill/bin")
        return sorted(
            path
            for path, mode in self.files.items()
            if path.rpartition("/")[0] in folders and mode & EXECUTABLE
        )


def digest(archive: Path) -> str:
    """Return the digest of the manifest: two images of one digest are the same."""
    with tarfile.open(archive) as tar:
        found: str = _json(tar, "index.json")["manifests"][0]["digest"]
    return found


def contents(archive: Path) -> Contents:
    """Read an OCI archive."""
    found = Contents(digest(archive))
    texts: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for layer in _json(tar, _blob(found.digest))["layers"]:
            with _open(tar, layer) as blob, tarfile.open(fileobj=blob, mode="r|") as files:
                _add(files, found.files, texts)
    for path, text in texts.items():
        if path in found.files:
            found.packages |= set(_debian(text) if path == DPKG else [_python(text)])
    return found


def _blob(name: str) -> str:
    return f"blobs/{name.replace(':', '/')}"


def _read(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream


def _json(tar: tarfile.TarFile, name: str) -> Json:
    found: Json = json.load(_read(tar, name))
    return found


def _open(tar: tarfile.TarFile, layer: Json) -> IO[bytes]:
    stream = _read(tar, _blob(layer["digest"]))
    packed = layer["mediaType"].endswith("gzip")
    return gzip.open(stream) if packed else stream  # type: ignore[return-value]


def _add(layer: tarfile.TarFile, files: dict[str, int], texts: dict[str, str]) -> None:
    """Lay one layer over the files so far."""
    gone: set[str] = set()  # of the layers below
    added: dict[str, int] = {}
    for member in layer:
        path = member.name.removeprefix("./").strip("/")
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            gone.add(folder)
        elif name.startswith(WHITEOUT):
            gone.add(f"{folder}/{name.removeprefix(WHITEOUT)}".strip("/"))
        elif not member.isdir():
            added[path] = member.mode
            if member.isfile() and (path == DPKG or WHEEL.search(path)):
                stream = layer.extractfile(member)
                texts[path] = stream.read().decode() if stream else ""
    for path in [p for p in files if gone & {p, *map(str, PurePosixPath(p).parents)}]:
        del files[path]
    files.update(added)


def _debian(status: str) -> Iterator[Package]:
    for block in status.split("\n\n"):
        package = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", block, re.M))
        if package.get("Status") == "install ok installed":
            name, version = package["Package"], package["Version"]
            yield Package("deb", name, version, package["Architecture"])


def _python(metadata: str) -> Package:
    fields = Parser().parsestr(metadata, headersonly=True)
    name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
    # Ours is on no index: under its name there another's would be found.
    kind = "generic" if name == "overspill" else "pypi"
    return Package(kind, name, fields["Version"], licence=fields.get("License-Expression", ""))


def bill(image: Contents, name: str) -> str:
    """Return the bill of materials of an image."""
    components = [_component(package) for package in sorted(image.packages)]
    about = {"type": "container", "bom-ref": image.digest, "name": name, "version": image.digest}
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, image.digest)}",
            "version": 1,
            "metadata": {"component": about},
            "components": components,
        },
        indent=1,
    )


def _component(package: Package) -> Json:
    licences = {"licenses": [{"expression": package.licence}]} if package.licence else {}
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        **licences,
        "purl": package.purl,
    }


if __name__ == "__main__":
    source = Path(sys.argv[1])
    print(bill(contents(source), source.stem))
