"""The loader's options, read from environment variables that the operator sets."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overspill.engine.errors import InvalidOptions
from overspill.engine.fetch import source

DEFAULT_PORT = 8000
DEFAULT_CACHE = "/models"
SECRET = "/secrets/model"  # noqa: S105 - where it is mounted
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Options:
    """What to load, and where to.

    `folder` is a child of `cache`. `holder` names this loader on a shared volume: the same after
    a restart of its container, another in each pod.
    """

    source: source.Source
    cache: Path
    folder: Path
    sha256: str
    port: int
    secret: Path
    holder: str


def from_environment(env: Mapping[str, str]) -> Options:
    """Options from `OVERSPILL_*` variables. Raises InvalidOptions."""
    cache = Path(env.get("OVERSPILL_MODEL_CACHE") or DEFAULT_CACHE)
    folder = Path(env.get("OVERSPILL_MODEL_FOLDER", ""))
    if folder.parent != cache or not _NAME.fullmatch(folder.name):
        raise InvalidOptions(f"OVERSPILL_MODEL_FOLDER must be a folder right under {cache}")
    sha256 = env.get("OVERSPILL_MODEL_SHA256", "").lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise InvalidOptions("model.sha256 must have 64 hexadecimal digits")
    return Options(
        source=source.parse(
            env.get("OVERSPILL_MODEL_URI", ""), env.get("OVERSPILL_MODEL_ENDPOINT", "")
        ),
        cache=cache,
        folder=folder,
        sha256=sha256,
        port=_port(env.get("OVERSPILL_PORT", "")),
        secret=Path(env.get("OVERSPILL_MODEL_SECRET") or SECRET),
        holder=_holder(env.get("OVERSPILL_POD_UID", "")),
    )


def _port(text: str) -> int:
    if text and not (text.isdecimal() and 0 <= int(text) < 65536):
        raise InvalidOptions(f"OVERSPILL_PORT is {text!r}; give a number from 0 to 65535")
    return int(text) if text else DEFAULT_PORT


def _holder(pod_uid: str) -> str:
    """The pod's UID, else its address, which no two living pods share."""
    name = pod_uid or socket.gethostbyname(socket.gethostname())
    return re.sub(r"[^A-Za-z0-9]", "-", name)
