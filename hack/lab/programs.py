"""Programs that run beside the cluster on this machine, built from modules of hack/cluster/go."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.kube import ROOT, CommandFailed, eventually

BUILD_TIMEOUT = 3600  # seconds; four to six minutes on two idle cores


def built(module: str) -> Path:
    """Return the folder of a module's programs; builds them first where they are not there yet.

    :raises CommandFailed: when that fails.
    """
    command = [sys.executable, "hack/cluster/main.py", "build", module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT)
    if done.returncode:
        raise CommandFailed(f"{module} could not be built: {done.stderr}{done.stdout}")
    return Path(done.stdout.splitlines()[-1])


def source(module: str, path: str) -> Path:
    """Return the source of the very version that a module builds.

    :param path: of the Go module that is its source.
    """
    folder = ROOT / "hack" / "cluster" / "go" / module
    command = ["go", "mod", "download", path]
    env = os.environ | {"GOFLAGS": "-mod=mod"}
    subprocess.run(command, cwd=folder, env=env, check=True, timeout=300, capture_output=True)
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", path],
        cwd=folder, check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    return Path(listed.stdout.strip())


@contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run a program until the block ends."""
    with log.open("w") as stream:
        child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def await_port(port: int) -> None:
    """Wait until something accepts connections on that port of 127.0.0.1."""

    def listening() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(f"port {port} answers", listening, timeout=60)
