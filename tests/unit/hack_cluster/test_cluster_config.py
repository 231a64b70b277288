"""What the local cluster renders and builds, without starting anything."""

import hashlib
import io
import json
import shutil
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from localcluster import build, components, images, layout, templates
from localcluster.progress import ClusterError, run

FILES = sorted(p for p in layout.CONFIG.rglob("*") if p.is_file())


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_every_configuration_file_renders(file: Path) -> None:
    rendered = templates.render(file.read_text())
    assert "${" not in rendered
    if file.suffix == ".yaml":
        assert list(yaml.safe_load_all(rendered))
    elif file.suffix == ".conflist":
        plugin = json.loads(rendered)["plugins"][0]
        assert plugin["ipMasq"] is False
        assert plugin["isGateway"] is False
    elif file.suffix == ".toml":
        assert tomllib.loads(rendered)["grpc"]["address"] == str(layout.CONTAINERD_SOCKET)


def test_no_pod_reaches_the_store() -> None:
    """Whoever reaches it, as client or as peer, has every Secret; pods reach the node's address."""
    argv = components.etcd().argv
    listening = dict(a.removeprefix("--listen-").split("=", 1) for a in argv if "--listen" in a)
    assert set(listening) == {"client-urls", "peer-urls"}
    for url in listening.values():
        assert url.startswith(("unix:///", "http://127.0.0.1:"))


def test_a_name_that_layout_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError, match="NO_SUCH_NAME"):
        templates.render("${NO_SUCH_NAME}")


def test_an_unchanged_file_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "config"
    templates.write_if_changed(file, "a")
    before = file.stat().st_mtime_ns
    templates.write_if_changed(file, "a")
    assert file.stat().st_mtime_ns == before
    templates.write_if_changed(file, "b")
    assert file.read_text() == "b"


@pytest.mark.parametrize("module", build.MODULES + build.ON_DEMAND, ids=lambda m: m.name)
def test_every_module_pins_its_source(module: build.Module) -> None:
    flags = build.linker_flags(module, (module.folder / "go.mod").read_text())
    assert flags.startswith("-s -w")
    assert "{" not in flags
    assert (module.folder / "go.sum").exists()


def test_kubernetes_is_stamped_with_its_version() -> None:
    flags = build.linker_flags(build.MODULES[0], "require k8s.io/kubernetes v1.99.7 // indirect\n")
    assert "gitVersion=v1.99.7" in flags
    assert "gitMinor=99" in flags


def test_a_module_without_its_requirement_is_named() -> None:
    with pytest.raises(ClusterError, match=r"go/kubernetes/go\.mod does not require"):
        build.version(build.MODULES[0], "module x\n")


def test_the_key_changes_with_sources_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build.MODULES[0]
    shutil.copytree(module.folder, tmp_path / "go" / module.name)
    monkeypatch.setattr(layout, "TOOL", tmp_path)
    first = build.key(module)
    assert build.key(module) == first
    assert build.key(replace(module, packages=("/cmd/kubectl",))) != first
    with (module.folder / "go.sum").open("a") as file:
        file.write("x\n")
    assert build.key(module) != first


def test_the_pause_image_is_a_sound_oci_archive() -> None:
    archive = images.single_program_image("example.dev/p:1", b"\x7fELF", "amd64")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "example.dev/p:1"
    manifest = json.loads(files["blobs/sha256/" + entry["digest"].split(":")[1]])
    for blob in (entry, manifest["config"], *manifest["layers"]):
        content = files["blobs/sha256/" + blob["digest"].split(":")[1]]
        assert hashlib.sha256(content).hexdigest() == blob["digest"].split(":")[1]
        assert len(content) == blob["size"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sh", "-c", "echo why >&2; exit 3"], r"failed with 3:\nwhy"),
        (["no-such-command-here"], "is not installed"),
    ],
)
def test_a_failed_command_says_why(argv: list[str], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        run(argv)
