"""What the user sees while the cluster comes up: a line per step, with its time."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START = time.monotonic()


class ClusterError(Exception):
    """Something that the user can mend; the message says how."""


def clock(seconds: float) -> str:
    """Seconds as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(message: str) -> None:
    """Print a line that begins with the time since the command started."""
    print(f"{clock(time.monotonic() - START):>6}  {message}", flush=True)


@contextmanager
def step(name: str, usual: str = "") -> Iterator[None]:
    """Announce a long step with the time it usually takes, and say how long it took."""
    began = time.monotonic()
    say(f"{name} …" + (f" (usually {usual})" if usual else ""))
    yield
    say(f"{name}: done in {clock(time.monotonic() - began)}")


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return its output.

    `timeout` is in seconds. Raises ClusterError with the command's own last words when it fails.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, input=stdin, env=env, cwd=cwd, timeout=timeout, text=True, capture_output=True
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(command)}` took longer than {timeout:.0f} s") from None
    except FileNotFoundError:
        raise ClusterError(f"`{command[0]}` is not installed") from None
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(command)}` failed with {done.returncode}:\n{tail}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], timeout: float = 10) -> bool:
    """Whether a command ends well within `timeout` seconds."""
    try:
        run(argv, timeout=timeout)
    except ClusterError:
        return False
    return True


def wait_until(what: str, check: Callable[[], bool], timeout: float, interval: float = 0.2) -> None:
    """Poll `check` every `interval` seconds; ClusterError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{what}: not there after {timeout:.0f} s; logs are in the log folder"
            )
        time.sleep(interval)
