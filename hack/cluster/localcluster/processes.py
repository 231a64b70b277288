"""Starts, recognises and stops the cluster's long-running programs.

A pid file is believed only while the process it names has the same start time, program and
arguments: a pid that the kernel has given to somebody else is never signalled.
"""

import dataclasses
import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster import layout
from localcluster.progress import ClusterError, say, wait_until

LOG_LIMIT = 50 << 20  # bytes; a larger log is moved aside at the next start


@dataclass(frozen=True)
class Program:
    """A long-running part of the cluster."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    inputs: tuple[Path, ...] = ()  # files that it reads at start: a change means a restart
    timeout: float = 60  # seconds to become ready

    @property
    def executable(self) -> str:
        """The program's file, links resolved."""
        return os.path.realpath(self.argv[0])

    @property
    def pid_file(self) -> Path:
        """Where the running process is recorded."""
        return layout.RUN / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return layout.LOGS / f"{self.name}.log"

    def fingerprint(self) -> str:
        """A hash of everything that a running process took in at its start."""
        digest = hashlib.sha256(repr((self.executable, self.argv)).encode())
        for file in self.inputs:
            digest.update(file.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Process:
    """One running process, by what tells it from any other."""

    pid: int
    started: int  # clock ticks after boot, field 22 of /proc/PID/stat
    executable: str
    argv: tuple[str, ...]


def inspect(pid: int) -> Process | None:
    """The process with this pid, or None when there is none (or only a zombie)."""
    folder = Path("/proc", str(pid))
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        executable = os.readlink(folder / "exe").removesuffix(" (deleted)")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), executable, tuple(argv))


def recorded(program: Program) -> tuple[Process, str] | None:
    """The running process of the pid file and its fingerprint; None if not to be trusted."""
    try:
        record = json.loads(program.pid_file.read_text())
        known = Process(
            record["pid"], record["started"], record["executable"], tuple(record["argv"])
        )
        fingerprint = str(record["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (known, fingerprint) if inspect(known.pid) == known else None


def running() -> Iterator[Process]:
    """Every process of this machine that can be looked at."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := inspect(int(entry.name))):
            yield process


def is_ours(process: Process, names: frozenset[str]) -> bool:
    """Whether a process is one of the named programs, working on this cluster's folders."""
    folders = (str(layout.STATE), str(layout.RUN))
    return Path(process.executable).name in names and any(
        folder in argument for argument in process.argv for folder in folders
    )


def strays(names: frozenset[str]) -> list[Process]:
    """Running programs of the cluster, recorded or not."""
    return [process for process in running() if is_ours(process, names)]


def stop(process: Process, grace: float = 5) -> None:
    """End a process: SIGTERM, and SIGKILL after `grace` seconds."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if inspect(process.pid) != process:
            return
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not ended(handle, grace):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not ended(handle, 10):
                raise ClusterError(f"process {process.pid} ({process.argv[0]}) cannot be killed")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def ended(handle: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of the process behind a pidfd."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def ensure(program: Program) -> bool:
    """Start a program unless it runs healthily with the same inputs; True if it was started."""
    fingerprint = program.fingerprint()
    found = recorded(program)
    if found and found[1] == fingerprint and healthy(program):
        return False
    for process in strays(frozenset({Path(program.executable).name})):
        stop(process)
    start(program, fingerprint)
    return True


def ensure_all(programs: tuple[Program, ...]) -> None:
    """Start those of the programs that need it together, then wait until they are ready."""
    for program in [program for program in programs if ensure(program)]:
        await_ready(program)


def healthy(program: Program, patience: float = 20) -> bool:
    """Whether a running program answers within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not program.ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


def start(program: Program, fingerprint: str) -> None:
    """Start a program in a session of its own, so that it outlives this command."""
    if program.log.exists() and program.log.stat().st_size > LOG_LIMIT:
        program.log.replace(program.log.with_suffix(".log.1"))
    environment = {
        "PATH": f"{layout.BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
    }
    with program.log.open("ab") as log:
        child = subprocess.Popen(
            program.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    record(program, child, fingerprint)


def record(program: Program, child: "subprocess.Popen[bytes]", fingerprint: str) -> None:
    """Write the pid file of a program that was just started."""
    process = settled(program, child)
    content = dataclasses.asdict(process) | {"fingerprint": fingerprint}
    scratch = program.pid_file.with_suffix(".tmp")
    scratch.write_text(json.dumps(content))
    scratch.replace(program.pid_file)


def settled(program: Program, child: "subprocess.Popen[bytes]") -> Process:
    """The new process, once the kernel shows its arguments: that is shortly after exec returns."""
    deadline = time.monotonic() + 5
    while child.poll() is None and time.monotonic() < deadline:
        process = inspect(child.pid)
        if process and process.argv == program.argv:
            return process
        time.sleep(0.005)
    raise ClusterError(f"{program.name} ended at once:\n{last_words(program)}")


def last_words(program: Program) -> str:
    """The end of a program's log, for an error message."""
    return "\n".join(program.log.read_text(errors="replace").splitlines()[-10:])


def await_ready(program: Program) -> None:
    """Wait until a started program answers; ClusterError with its last words if it does not."""

    def check() -> bool:
        if recorded(program) is None:
            raise ClusterError(f"{program.name} ended:\n{last_words(program)}")
        return program.ready()

    try:
        wait_until(program.name, check, program.timeout)
    except ClusterError as error:
        raise ClusterError(f"{error}\n(log: {program.log})") from None
    say(f"  {program.name} is ready")
