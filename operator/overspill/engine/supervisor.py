"""Run an engine's server in a child process, from its start to its drained end.

SIGTERM (or Ctrl-C) starts a drain: nothing is refused, requests finish, then the child is stopped.
The child's own end is a fault; what kind its exit status and last lines tell.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import IO

import structlog

from overspill.engine.base import Engine, Launch
from overspill.engine.drain import INTERVAL, Drain
from overspill.engine.errors import EngineCrashed, EngineError
from overspill.engine.load import Gauges

log = structlog.get_logger(__name__)

LAST_LINES = 400  # of the child, kept for a message; a traceback through processes is long
STOP_SECONDS = 5.0  # for an idle engine to end; the pod's grace period has 10 after the drain
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}


def block_signals() -> None:
    """Keep signals for `supervise`; call first, before any thread or child exists.

    A blocked signal reaches even process 1, which otherwise ignores those without a handler.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def supervise(engine: Engine, launch: Launch, port: int, drain: float) -> None:
    """Run `engine`, which serves on `port`, until told to stop; drain for at most `drain` seconds.

    Raises the EngineError that the engine ended with.
    """
    child = Child(engine, launch)
    page = f"http://127.0.0.1:{port}/metrics"
    gauges = Gauges(page, engine.running, engine.waiting, engine.loading)
    try:
        _wait(child)
        _drain(child, gauges, drain)
    finally:
        child.stop()


class Child:
    """An engine's process, whose output is logged and whose last lines are kept."""

    def __init__(self, engine: Engine, launch: Launch) -> None:
        self._engine = engine
        self._process = subprocess.Popen(  # noqa: S603 - our own module, or vLLM's
            launch.command,
            env={**os.environ, **launch.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C and `kill` reach all its processes through us
            preexec_fn=_unblock_signals,
        )
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._served = False
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.daemon = True
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        ready = self._engine.ready_line
        for line in output:
            self._lines.append(line.strip())
            self._served = self._served or (ready is not None and ready in line)
            log.info(self._engine.title, line=line.strip())

    def check(self) -> None:
        """Raise the fault that the child ended with, if it ended."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1)
            raise fault(self._engine, status, list(self._lines), self._served)

    def stop(self) -> None:
        """End the child and its own children; nothing they hold would need saving."""
        self._process.terminate()  # lets vLLM remove its shared memory
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _unblock_signals() -> None:
    """In the child: engines stop their own processes by signals, which would inherit our mask."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _wait(child: Child) -> None:
    """Wait for a stop signal; the child's end raises."""
    while signal.sigwait(SIGNALS) not in STOP_SIGNALS:
        child.check()


def _drain(child: Child, gauges: Gauges, seconds: float) -> None:
    began = time.monotonic()
    state = Drain(deadline=began + seconds)
    active: int | None = None
    log.info("draining", seconds=seconds)
    while not state.finished(time.monotonic()):
        active = gauges.active()
        state = state.look(active)
        signal.sigtimedwait({signal.SIGCHLD}, INTERVAL)
        child.check()
    log.info("drained", seconds=round(time.monotonic() - began, 1), left=active)


def fault(engine: Engine, status: int, lines: Sequence[str], served: bool) -> EngineError:
    """The fault of an engine that ended with `status` after writing `lines`.

    `served` says whether it had loaded its model before.
    """
    known = engine.fault(status, lines, served)
    if known:
        return known
    if status == -signal.SIGKILL:
        return EngineCrashed("the engine was killed, most likely for passing its memory limit")
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    last = lines[-1] if lines else "it wrote nothing"
    return EngineCrashed(f"{engine.title} ended with {how}: {last}")
