"""What is read from an image's layers, and the bill of materials that it makes."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import sbom
from sbom import Package

STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u13
Architecture: amd64
Description: text
 Version: 9 is no field here

Package: removed
Status: deinstall ok config-files
Version: 1
Architecture: amd64
"""
METADATA = "Metadata-Version: 2.4\nName: {}\nVersion: 1.2\nLicense-Expression: MIT\n\nName: body\n"
Files = dict[str, bytes]


def tar(files: Files) -> bytes:
    """A tar of files; programs can be run, and a name that ends with a slash is a folder."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size, info.mode = len(content), 0o755 if "bin/" in name else 0o644
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def archive(folder: Path, *layers: Files, packed: bool = True) -> Path:
    """An OCI archive of these layers, the lowest first."""
    blobs: Files = {}

    def blob(content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{name}"] = content
        return f"sha256:{name}"

    kind = "application/vnd.oci.image.layer.v1.tar" + "+gzip" * packed
    described = [
        {"mediaType": kind, "digest": blob(gzip.compress(tar(x), mtime=0) if packed else tar(x))}
        for x in layers
    ]
    manifest = blob(json.dumps({"layers": described}).encode())
    index = json.dumps({"manifests": [{"digest": manifest}]}).encode()
    path = folder / "image.tar"
    path.write_bytes(tar({"index.json": index, **blobs}))
    return path


def lib(name: str) -> str:
    return f"app/lib/{name}-1.2.dist-info/METADATA"


def wheel(name: str) -> Files:
    return {lib(name): METADATA.format(name).encode()}


@pytest.mark.parametrize("packed", [True, False])
def test_packages_of_debian_and_python_are_found(tmp_path: Path, packed: bool) -> None:
    system = {"./var/lib/dpkg/status": STATUS.encode(), "./usr/bin/sh": b""}
    python = {**wheel("PyYAML"), **wheel("a_b.C"), **wheel("overspill"), "app/lib/x.py": b""}
    found = sbom.contents(archive(tmp_path, system, python, packed=packed))
    assert sorted(package.purl for package in found.packages) == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64",
        "pkg:generic/overspill@1.2",
        "pkg:pypi/a-b-c@1.2",
        "pkg:pypi/pyyaml@1.2",
    ]
    assert found.programs() == ["usr/bin/sh"]


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ({}, {"a", "b"}),
        ({"app/lib/.wh.a-1.2.dist-info": b""}, {"b"}),
        ({"app/.wh.lib": b""}, set()),
        ({"app/lib/.wh..wh..opq": b""}, set()),
        ({**wheel("c"), "app/lib/.wh..wh..opq": b""}, {"c"}),  # of the layers below only
        ({"app/.wh.li": b"", "app/lib/": b""}, {"a", "b"}),
    ],
)
def test_what_a_layer_removes_is_not_in_the_image(
    tmp_path: Path, upper: Files, left: set[str]
) -> None:
    found = sbom.contents(archive(tmp_path, {**wheel("a"), **wheel("b")}, upper))
    assert {package.name for package in found.packages} == left
    assert set(found.files) == {lib(name) for name in left}


def test_the_bill_is_cyclonedx_and_always_the_same(tmp_path: Path) -> None:
    """https://cyclonedx.org/docs/1.6/json/"""
    image = archive(tmp_path, {**wheel("b"), **wheel("a")})
    texts = {sbom.bill(sbom.contents(image), "operator") for _ in range(2)}
    [text] = texts
    bill: dict[str, Any] = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["metadata"]["component"]["version"] == sbom.digest(image)
    assert bill["components"] == [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@1.2",
            "name": name,
            "version": "1.2",
            "licenses": [{"expression": "MIT"}],
            "purl": f"pkg:pypi/{name}@1.2",
        }
        for name in ("a", "b")
    ]


def test_another_content_is_another_digest_and_bill(tmp_path: Path) -> None:
    one = sbom.contents(archive(tmp_path, wheel("a")))
    other = sbom.contents(archive(tmp_path, {**wheel("a"), "etc/x": b""}))
    assert one.digest != other.digest
    numbers = {json.loads(sbom.bill(x, "a"))["serialNumber"] for x in (one, other)}
    assert len(numbers) == 2
    assert Package("pypi", "a", "1.2", licence="MIT") in one.packages & other.packages
