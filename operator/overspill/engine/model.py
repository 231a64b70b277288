"""Find the model: a GGUF file or a folder with exactly one, or a folder of safetensors files.

An image volume or a PVC shows up as a folder. A model split by llama.cpp's `gguf-split`
(`name-00001-of-00003.gguf`) counts as one: its first part names the rest.
https://github.com/ggml-org/llama.cpp/tree/master/tools/gguf-split
"""

import re
from collections.abc import Iterable
from pathlib import Path

from overspill.engine.errors import ModelAmbiguous, ModelNotFound

SHOWN = 5  # names in a message at most
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def find_gguf(path: Path) -> Path:
    """The GGUF file at `path`. Raises ModelNotFound or ModelAmbiguous, saying what is there."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelNotFound(f"{path} does not exist; check spec.model.uri")
    files = sorted(p for p in path.rglob("*") if _is_model(p))
    if not files:
        raise ModelNotFound(f"{path} holds no .gguf file, only: {_names(path, path.iterdir())}")
    if len(files) > 1:
        raise ModelAmbiguous(
            f"{path} holds {len(files)} models ({_names(path, files)}); "
            "name one in spec.model.uri, or keep one"
        )
    return files[0]


def find_safetensors(path: Path) -> Path:
    """The folder with `config.json` and weights as safetensors: `path`, or the only one below it.

    Raises ModelNotFound or ModelAmbiguous. https://huggingface.co/docs/safetensors
    """
    if not path.exists():
        raise ModelNotFound(f"{path} does not exist; check spec.model.uri")
    folder = path if path.is_dir() else path.parent
    found = [folder] if _holds_model(folder) else sorted(_folders(folder))
    if not found:
        raise ModelNotFound(
            f"{path} holds no folder with config.json and .safetensors files, only: "
            f"{_names(folder, folder.iterdir())}; a GGUF model needs engine.runtime llamacpp"
        )
    if len(found) > 1:
        raise ModelAmbiguous(
            f"{path} holds {len(found)} models ({_names(path, found)}); name one in spec.model.uri"
        )
    return found[0]


def _folders(folder: Path) -> Iterable[Path]:
    return (config.parent for config in folder.rglob("config.json") if _holds_model(config.parent))


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _is_model(path: Path) -> bool:
    return path.suffix.lower() == ".gguf" and path.is_file() and not _LATER_PART.search(path.name)


def _names(folder: Path, paths: Iterable[Path]) -> str:
    names = sorted(str(p.relative_to(folder)) for p in paths)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
