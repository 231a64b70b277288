"""`overspill try` as a newcomer runs it, and that whatever ends it leaves nothing behind."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from conftest import children

PATIENCE = 600.0  # seconds: the machine may be busy
PROGRAM = "from overspill.cli.main import run; run()"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Shown:
    """A running `overspill try`, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes], folder: Path) -> None:
        self.process, self.folder = process, folder
        self._output, self._raw = output, bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal's other end is gone
            while data := os.read(self._output.fileno(), 65_536):
                self._raw += data

    @property
    def raw(self) -> str:
        return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.raw)

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert self.process.poll() is None, self.text[-3000:]
            assert time.monotonic() < deadline, self.text[-3000:]
            time.sleep(0.05)

    def end(self) -> int:
        """Wait for its end; return its status."""
        status = self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=10)
        return status

    def type(self, keys: bytes) -> None:
        os.write(self._output.fileno(), keys)

    def offspring(self) -> list[int]:
        return children(self.process.pid)

    @property
    def left(self) -> list[str]:
        """Files that are left of it."""
        return [path.name for path in self.folder.iterdir()]


@contextlib.contextmanager
def shown(folder: Path, *options: str, terminal: bool = False) -> Iterator[Shown]:
    """Run `overspill try`; its temporary files go below a folder."""
    folder.mkdir()
    env = {**os.environ, "TMPDIR": str(folder), "TERM": "xterm"}
    command = [sys.executable, "-c", PROGRAM, "try", *options]
    if terminal:
        master, inner = pty.openpty()
        process = subprocess.Popen(
            command, env=env, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)
        output: IO[bytes] = os.fdopen(master, "r+b", buffering=0)
    else:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        output = process.stdout
    try:
        yield Shown(process, output, folder)
    finally:
        process.kill()
        process.wait()
        output.close()


def pasted(lines: str) -> str:
    """Type what it tells to type into a shell that has the two clients; return what that says."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", lines], env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def gone(pids: list[int]) -> bool:
    """Whether these processes have ended, or do so soon."""
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_whole_show_on_a_terminal_and_clients_of_both_apis_then_ctrl_c(tmp_path: Path) -> None:
    with shown(tmp_path / "tmp", terminal=True) as trial:
        trial.wait_for("It stays up until Ctrl-C")
        trial.wait_for("what you change there holds")
        parts = trial.offspring()
        assert len(parts) == 2, "the engine and the stand-in"
        (lines,) = re.findall(r"(?s)export OPENAI.*Anthropic\(\).*?\)\)'", trial.text)
        answers = pasted(lines)
        assert "x-overspill-destination: local" in answers
        assert "ChatCompletion(" in answers
        assert "Message(" in answers
        trial.type(b"\x03")
        assert trial.end() == 0
        assert "Ended; nothing is left." in trial.text
        assert trial.left == []
    assert gone(parts)
    (port,) = re.findall(r"OPENAI_BASE_URL=http://127.0.0.1:(\d+)/v1", lines)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0
    here, spilled = re.findall(
        r"(\d+) (?:were answered here|spilled \(ObjectiveAtRisk\))", trial.text
    )[:2]
    assert int(here) + int(spilled) == 16
    (spent,) = re.findall(r"\$(\S+) of \$0\.004 spent", trial.text)
    assert 0 < float(spent) <= 0.004


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ended_in_the_midst_it_leaves_nothing(
    tmp_path: Path, model: Path, number: signal.Signals
) -> None:
    with shown(tmp_path / "tmp", "--model", str(model)) as trial:
        trial.wait_for("questions at once")
        parts = trial.offspring()
        assert len(parts) == 2
        trial.process.send_signal(number)
        assert trial.end() == (-9 if number is signal.SIGKILL else 130)
        assert trial.raw == trial.text, "no escapes where there is no terminal"
        if number is not signal.SIGKILL:
            assert trial.left == []
    assert gone(parts), "also when nobody could end them"


def test_ended_while_the_model_is_loaded_it_leaves_nothing(tmp_path: Path) -> None:
    with shown(tmp_path / "tmp") as trial:
        trial.wait_for("The parts")
        trial.process.send_signal(signal.SIGINT)
        assert trial.end() == 130
        assert trial.left == []


def test_where_pip_cannot_load_the_model_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with shown(tmp_path / "tmp") as trial:
        assert trial.end() == 1
        assert re.search(r"error: pip cannot load the model \(.*\); give --model FILE", trial.text)
        assert trial.left == []


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\x03" + b"\xff" * 400)
    with shown(tmp_path / "tmp", "--model", str(broken)) as trial:
        assert trial.end() == 1
        assert "error: llama.cpp did not start: ModelLoadFailed" in trial.text
        assert trial.left == []
