"""Where the model is, and what is said when it is not there."""

from pathlib import Path

import pytest

from overspill.engine.errors import ModelAmbiguous, ModelNotFound
from overspill.engine.model import find_model


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
    assert find_model(tmp_path) == tmp_path / expected


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "weights.bin")
    assert find_model(tmp_path / "weights.bin") == tmp_path / "weights.bin"


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere does not exist; check spec\.model\.uri"):
        find_model(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no \.gguf file, only: nothing"):
        find_model(tmp_path)


def test_other_files_are_shown(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.safetensors" for n in range(7)))
    with pytest.raises(ModelNotFound, match=r"0\.safetensors, 1\.safetensors.* and 2 more"):
        find_model(tmp_path)


def test_two_models(tmp_path: Path) -> None:
    touch(tmp_path, "a.gguf", "b.gguf")
    with pytest.raises(ModelAmbiguous, match=r"holds 2 models \(a\.gguf, b\.gguf\)"):
        find_model(tmp_path)
