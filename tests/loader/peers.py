"""Loaders as processes, and where the programs of others are."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "build" / "tools" / "loader-peers" / "bin" / "python"
SERVER = "from moto.server import main; import sys; main(sys.argv[1:])"
NO_SIGNATURE = 4  # bucket.ACTIONS
BIG = 24 << 20  # bytes


@dataclass(frozen=True)
class Bucket:
    """The bucket `models`: where, what is in it, and a key to it."""

    endpoint: str
    files: Mapping[str, bytes]
    key: str
    secret: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Loader:
    """`overspill-engine fetch` as a process."""

    def __init__(self, folder: Path, uri: str, endpoint: str = "", pod: str = "one") -> None:
        self.port = free_port()
        self.cache = folder / "models"
        self.cache.mkdir(exist_ok=True)
        self.secret = folder / "secret"
        self.secret.mkdir(exist_ok=True)
        self._env = {
            "PATH": os.environ["PATH"],
            "OVERSPILL_MODEL_URI": uri,
            "OVERSPILL_MODEL_ENDPOINT": endpoint,
            "OVERSPILL_MODEL_CACHE": str(self.cache),
            "OVERSPILL_MODEL_FOLDER": str(self.cache / "key"),
            "OVERSPILL_MODEL_SECRET": str(self.secret),
            "OVERSPILL_POD_UID": pod,
            "OVERSPILL_PORT": str(self.port),
        }
        self.output = folder / f"{pod}.log"

    def start(self) -> "subprocess.Popen[bytes]":
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "overspill.engine.main", "fetch"],
                env=self._env,
                stdout=output,
                stderr=output,
            )

    def run(self) -> int:
        return self.start().wait(timeout=60)

    def said(self) -> str:
        return self.output.read_text()

    def progress(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/progress") as page:
                return dict(json.load(page))
        except OSError:
            return {}

    def loaded(self) -> dict[str, bytes]:
        folder = self.cache / "key"
        files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}
