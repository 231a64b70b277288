"""Where the model is, and what is said when it is not there."""

from pathlib import Path

import pytest

from overspill.engine.errors import ModelAmbiguous, ModelNotFound
from overspill.engine.model import find_gguf, find_safetensors


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.gguf"], "a.gguf"),
        (["A.GGUF", "README.md", "config.json"], "A.GGUF"),
        (["models/deep/a.gguf"], "models/deep/a.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "m-00001-of-00002.gguf"),
    ],
)
def test_the_only_model_of_a_folder(tmp_path: Path, files: list[str], expected: str) -> None:
    touch(tmp_path, *files)
    assert find_gguf(tmp_path) == tmp_path / expected


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "weights.bin")
    assert find_gguf(tmp_path / "weights.bin") == tmp_path / "weights.bin"


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere does not exist; check spec\.model\.uri"):
        find_gguf(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no \.gguf file, only: nothing"):
        find_gguf(tmp_path)


def test_other_files_are_shown(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.safetensors" for n in range(7)))
    with pytest.raises(ModelNotFound, match=r"0\.safetensors, 1\.safetensors.* and 2 more"):
        find_gguf(tmp_path)


def test_two_models(tmp_path: Path) -> None:
    touch(tmp_path, "a.gguf", "b.gguf")
    with pytest.raises(ModelAmbiguous, match=r"holds 2 models \(a\.gguf, b\.gguf\)"):
        find_gguf(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["config.json", "model.safetensors"], "."),
        (["config.json", "model-00001-of-00002.safetensors", "README.md"], "."),
        (["models/a/config.json", "models/a/model.safetensors"], "models/a"),
        (["config.json", "a.safetensors", "draft/config.json", "draft/b.safetensors"], "."),
    ],
)
def test_the_only_safetensors_model(tmp_path: Path, files: list[str], expected: str) -> None:
    touch(tmp_path, *files)
    assert find_safetensors(tmp_path) == tmp_path / expected


@pytest.mark.parametrize("files", [["a.gguf"], ["config.json", "pytorch_model.bin"], []])
def test_other_formats_are_no_safetensors_model(tmp_path: Path, files: list[str]) -> None:
    touch(tmp_path, *files)
    with pytest.raises(ModelNotFound, match=r"\.safetensors files, only: (a\.gguf|config|nothing)"):
        find_safetensors(tmp_path)


def test_a_safetensors_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"does not exist; check spec\.model\.uri"):
        find_safetensors(tmp_path / "nowhere")


def test_two_safetensors_models(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{name}/{file}" for name in "ab" for file in ("config.json", "m.safetensors"))
    )
    with pytest.raises(ModelAmbiguous, match=r"holds 2 models \(a, b\)"):
        find_safetensors(tmp_path)
