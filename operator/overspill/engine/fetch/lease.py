"""One loader at a time on a shared volume, on any file system.

The work folder always holds one file `lease-HOLDER`. It is made by renaming a prepared folder,
which only one of several can do; it changes hands by renaming `lease-OLD` to `lease-NEW`, which
again only one can do, and after which the old holder finds its own name gone. The holder
overwrites the file every few seconds; who sees no change for `STALE` seconds of its own clock
takes over, so no clocks are compared. A restarted container bears its pod's name and goes on at
once.

flock is not used: on network file systems it is missing, or holds on one node only and says so to
nobody. Two loaders at once (a holder that slept for longer than `STALE`) cost a second download
and no more: both write the same bytes of the same version to the same places, or to files of
their own, and what is published was verified.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from overspill.engine.fetch.store import check_folder

BEAT = 3.0  # seconds between two signs of life
STALE = 20.0  # seconds without one after which another may take over
RECORD = 128  # bytes; overwritten in place, so that a full volume does not stop it
PREFIX = "lease-"
FREE = "lease-free"


class LeaseLost(Exception):
    """Another loader has taken over."""


class Lease:
    """Our claim on a work folder."""

    def __init__(
        self, work: Path, holder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Claim `work` as `holder`; `clock` gives seconds that never go back."""
        self._work = work
        self._mine = PREFIX + holder
        self._clock = clock
        self._seen: tuple[str, str] = ("", "")
        self._since = clock()
        self._beats = 0
        self._beaten = clock()

    def acquire(self) -> bool:
        """Try once; whether it is ours now."""
        try:
            name = self._current()
        except FileNotFoundError:
            return self._create()
        if name != self._mine and not self._may_take(name):
            return False
        try:
            if not name:
                (self._work / FREE).touch(exist_ok=False)
                return False
            (self._work / name).rename(self._work / self._mine)
        except (FileNotFoundError, FileExistsError):
            return False  # another was faster
        self._beaten = self._clock()
        return True

    def _current(self) -> str:
        found = os.listdir(self._work)
        check_folder(self._work)  # its holder may have removed it just now
        return next((name for name in found if name.startswith(PREFIX)), "")

    def _may_take(self, name: str) -> bool:
        if name == FREE:
            return True
        seen = (name, self._text(name))
        if seen != self._seen:
            self._seen, self._since = seen, self._clock()
        return self._clock() - self._since >= STALE

    def _create(self) -> bool:
        fresh = self._work.with_name(f"{self._work.name}-{self._mine}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        (fresh / self._mine).write_text(_record(0, 0, None))
        try:
            fresh.rename(self._work)
        except OSError:  # not empty: another was faster
            shutil.rmtree(fresh, ignore_errors=True)
            return False
        self._beaten = self._clock()
        return True

    def beat(self, count: int, total: int | None) -> None:
        """Show that we live, and how far we are. Raises LeaseLost."""
        self._beats += 1
        try:
            descriptor = os.open(self._work / self._mine, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.pwrite(descriptor, _record(self._beats, count, total).encode(), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._beaten = self._clock()
        except FileNotFoundError:
            raise LeaseLost from None
        except OSError:
            if self._clock() - self._beaten > STALE / 2:
                raise LeaseLost from None

    def note(self) -> tuple[int, int | None]:
        """Bytes and total that the holder showed last."""
        try:
            said = json.loads(self._seen[1])
            return int(said["bytes"]), None if said["total"] is None else int(said["total"])
        except (ValueError, KeyError, TypeError):
            return 0, None

    def release(self) -> None:
        """Let another take it at once."""
        try:
            (self._work / self._mine).rename(self._work / FREE)
        except OSError:
            return  # lost, or it goes stale

    def _text(self, name: str) -> str:
        try:
            with (self._work / name).open(errors="replace") as stream:
                return stream.read(RECORD)
        except OSError:
            return ""


def _record(beat: int, count: int, total: int | None) -> str:
    return json.dumps({"beat": beat, "bytes": count, "total": total}).ljust(RECORD)
