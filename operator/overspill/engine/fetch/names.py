"""Which files of a repository are taken, and which names are refused. Pure.

Only formats that hold numbers and text are taken: no pickles (`.bin`, `.pt`, `.pth`, `.ckpt`), no
code (`.py`), no archives. A name that is taken and could lead out of the folder ends the load: a
repository that contains one is not to be trusted with the rest.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

from overspill.engine.errors import ModelAmbiguous, ModelNotFound
from overspill.engine.fetch.errors import ModelPathUnsafe

WEIGHTS = (".safetensors", ".gguf")
# Configuration, tokenizers (SentencePiece's `.model`, BPE's `.txt`) and chat templates.
BESIDE = (".json", ".txt", ".model", ".tiktoken", ".jinja")
MAX_FILES = 10_000
MAX_COMPONENT = 255  # bytes, as in every common file system
MAX_PATH = 1024  # bytes
MAX_DEPTH = 16
SHOWN = 5  # names in a message

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)

T = TypeVar("T")


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights."""
    return name.lower().endswith(WEIGHTS)


def is_taken(name: str) -> bool:
    """Whether a file of this name is of a known type and not hidden."""
    hidden = any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
    return not hidden and name.lower().endswith((*WEIGHTS, *BESIDE))


def safe(name: str) -> str:
    """Return `name`, a relative path with slashes. Raises ModelPathUnsafe."""
    parts = name.split("/")
    bad = (
        not name.isprintable()  # NUL, newlines, escapes, surrogates
        or "\\" in name
        or any(part in ("", ".", "..") or part.startswith(".") for part in parts)
        or any(part != part.strip() for part in parts)
        or any(len(part.encode()) > MAX_COMPONENT for part in parts)
        or len(name.encode()) > MAX_PATH
        or len(parts) > MAX_DEPTH
    )
    if bad:
        raise ModelPathUnsafe(f"the source has a file called {name[:80]!a}; nothing was taken")
    return name


def checked(names: Iterable[str]) -> list[str]:
    """Return all names, each safe, none twice and none the folder of another."""
    good = [safe(name) for name in names]
    if len(good) > MAX_FILES:
        raise ModelPathUnsafe(f"the source has {len(good)} files, at most {MAX_FILES} are taken")
    seen = set(good)
    parents = {name[:at] for name in good for at, char in enumerate(name) if char == "/"}
    if len(seen) < len(good) or seen & parents:
        raise ModelPathUnsafe("the source has one name twice; nothing was taken")
    return good


def under(path: str, names: Iterable[str]) -> dict[str, str]:
    """Return what `path` of a repository means: remote name → name in the model's folder.

    A file: that file alone, and the other parts of a split GGUF. A folder, or "": all of it.
    """
    remote = list(names)
    if path and path in remote:
        return {name: name.rpartition("/")[2] for name in _with_parts(path, remote)}
    start = f"{path}/" if path else ""
    return {name: name.removeprefix(start) for name in remote if name.startswith(start)}


def _with_parts(path: str, names: Iterable[str]) -> list[str]:
    match = _SPLIT.search(path)
    if not match:
        return [path]
    stem, count = path[: match.start()], match[2]
    part = re.compile(re.escape(stem) + rf"-\d{{5}}-of-{count}\.gguf", re.IGNORECASE)
    return [name for name in names if part.fullmatch(name)]


def choose(found: dict[str, T], what: str) -> dict[str, T]:
    """Return the files to load out of those found, by their names in the model's folder.

    Weights that are there twice are loaded once: `.safetensors` rather than `.gguf`, the split
    ones that an index names rather than `consolidated*` copies of them.

    :param what: the model's URI, for messages.
    """
    taken = {name: value for name, value in found.items() if is_taken(name)}
    checked(taken)
    weights = [name for name in taken if is_weights(name)]
    if not weights:
        raise ModelNotFound(
            f"{what} holds no file of a type that is loaded "
            f"({', '.join(WEIGHTS)}), only: {_shown(found)}"
        )
    tensors = [name for name in weights if name.lower().endswith(".safetensors")]
    dropped = set(weights) - set(tensors) if tensors else set()
    if any(name.endswith("model.safetensors.index.json") for name in taken):
        dropped |= {n for n in tensors if n.rpartition("/")[2].startswith("consolidated")}
    if not tensors:
        _refuse_several(weights, what)
    return {name: value for name, value in taken.items() if name not in dropped}


def _refuse_several(names: list[str], what: str) -> None:
    """A repository with one model in many quantisations: the engine can serve only one."""
    models = {_SPLIT.sub("", name) for name in names}
    if len(models) > 1:
        raise ModelAmbiguous(
            f"{what} holds {len(models)} models ({_shown(names)}); name one in spec.model.uri"
        )


def _shown(names: Iterable[str]) -> str:
    listed = sorted(names)
    some = ", ".join(ascii(name[:80])[1:-1] for name in listed[:SHOWN]) or "nothing"
    return some + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
