"""Run llama.cpp's server in a child process, from its start to its drained end.

SIGTERM (or Ctrl-C) starts a drain: nothing is refused, requests finish, then the child is stopped.
The child's own end is a fault whose reason is in its exit status and last line.
"""

import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from typing import IO

import structlog

from overspill.engine.drain import INTERVAL, Drain, active_requests
from overspill.engine.errors import (
    EngineCrashed,
    EngineError,
    InvalidOptions,
    ModelLoadFailed,
)

log = structlog.get_logger(__name__)

METRICS_TIMEOUT = 5.0  # seconds; a long prompt's step delays the page
LAST_LINES = 20  # of the child, kept for a message
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}


def block_signals() -> None:
    """Keep signals for `supervise`; call first, before any thread or child exists.

    A blocked signal reaches even process 1, which otherwise ignores those without a handler.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def supervise(command: Sequence[str], port: int, drain: float) -> None:
    """Run `command`, which serves on `port`, until told to stop; drain for at most `drain` seconds.

    Raises the EngineError that the child ended with.
    """
    child = Child(command)
    try:
        _wait(child)
        _drain(child, port, drain)
    finally:
        child.kill()


class Child:
    """A process whose standard error is logged and whose last lines are kept."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        stderr = self._process.stderr
        self._reader = threading.Thread(target=self._read, args=(stderr,), daemon=True)
        self._reader.start()

    def _read(self, stderr: IO[str]) -> None:
        for line in stderr:
            self._lines.append(line.strip())
            log.warning("llama.cpp", line=line.strip())

    def check(self) -> None:
        """Raise the fault that the child ended with, if it ended."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1)
            raise fault(status, list(self._lines))

    def kill(self) -> None:
        """End the child at once; it holds nothing that would need saving."""
        self._process.kill()
        self._process.wait()


def _wait(child: Child) -> None:
    """Wait for a stop signal; the child's end raises."""
    while signal.sigwait(SIGNALS) not in STOP_SIGNALS:
        child.check()


def _drain(child: Child, port: int, seconds: float) -> None:
    began = time.monotonic()
    state = Drain(deadline=began + seconds)
    active: int | None = None
    log.info("draining", seconds=seconds)
    while not state.finished(time.monotonic()):
        active = _active_requests(port)
        state = state.look(active)
        signal.sigtimedwait({signal.SIGCHLD}, INTERVAL)
        child.check()
    log.info("drained", seconds=round(time.monotonic() - began, 1), left=active)


def _active_requests(port: int) -> int | None:
    """What runs and waits now; 0 while no model is loaded, None when the server is too busy."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/metrics", timeout=METRICS_TIMEOUT
        ) as page:
            return active_requests(page.read().decode())
    except urllib.error.HTTPError as error:
        return 0 if error.code == 503 else None
    except ConnectionRefusedError:
        return 0
    except OSError as error:
        return 0 if isinstance(getattr(error, "reason", None), ConnectionRefusedError) else None


def fault(status: int, lines: Sequence[str]) -> EngineError:
    """The fault of a child that ended with `status` after writing `lines` to standard error."""
    last = lines[-1] if lines else ""
    known: dict[int, type[EngineError]] = {
        e.exit_status: e for e in (InvalidOptions, ModelLoadFailed)
    }
    if status in known:
        message = last.removeprefix(f"{known[status].__name__}: ")
        return known[status](_with_cause(message, lines))
    if status == -signal.SIGKILL:
        return EngineCrashed("the engine was killed, most likely for passing its memory limit")
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return EngineCrashed(f"llama.cpp ended with {how}: {last or 'it wrote nothing'}")


def _with_cause(message: str, lines: Sequence[str]) -> str:
    """Add llama.cpp's own first error line, where there is one."""
    cause = next((line for line in lines if " E " in line), "")
    return f"{message} ({cause.split(' E ', 1)[1].strip()})" if cause else message
