"""The folders of one model on its volume.

    CACHE/NAME/            the model; there only when all of it is, with a manifest
    CACHE/.NAME.work/      while it is loaded: `lease-…`, files/ (verified), parts/ (begun)
    CACHE/.NAME.old-…      on its way out

A part's file is named by a hash, so a remote name touches the disk only after it was checked.
What lies on a shared volume is not trusted: a link where a folder or file of ours should be ends
the load. Everything is on one file system, so that each step into the open is a rename.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from overspill.engine.errors import EngineError
from overspill.engine.fetch.digest import Check, Digest
from overspill.engine.fetch.errors import LoadFailed, ModelDiskFull, ModelPathUnsafe
from overspill.engine.fetch.files import RemoteFile

MANIFEST = ".overspill.json"
SPARE = 64 << 20  # bytes that a load leaves free
STRIDE = 16 << 20  # bytes of a file of unknown size between two looks at what is free
CHUNK = 1 << 20
GB = 1e9


class ModelVolumeFailed(LoadFailed):
    """The volume cannot be read or written."""


@contextmanager
def volume() -> Iterator[None]:
    """Turn what the volume refuses into a fault of the model."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ModelDiskFull("the model's volume is full; give it more room") from None
        if error.errno == errno.ELOOP:
            raise ModelPathUnsafe(f"{error.filename} on the model's volume is a link") from None
        name = errno.errorcode.get(error.errno or 0, "error")
        raise ModelVolumeFailed(f"the model's volume: {name} at {error.filename}") from None


class Store:
    """One model's place in the cache."""

    def __init__(self, folder: Path, holder: str) -> None:
        """Use `folder`, a child of the cache; `holder` tells our scratch folders from others'."""
        self.folder = folder
        self.work = folder.with_name(f".{folder.name}.work")
        self._files = self.work / "files"
        self._parts = self.work / "parts"
        self._aside = folder.with_name(f".{folder.name}.old-{holder}")

    def complete(self) -> bool:
        """Whether the model is there: its manifest, and each file with the size it says.

        Raises ModelPathUnsafe when the folder is a link.
        """
        try:
            check_folder(self.folder)
            manifest = json.loads((self.folder / MANIFEST).read_bytes())
            return all(
                _size(self.folder / name) == size for name, size in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False

    def prepare(self) -> None:
        """Make the work folders; the lease has made the outer one."""
        real_folder(self._files)
        real_folder(self._parts)

    def check_room(self, files: Mapping[str, RemoteFile]) -> None:
        """Raise ModelDiskFull unless what is missing fits."""
        total = sum(file.size or 0 for file in files.values())
        there = sum(self.part(name, file).there for name, file in files.items())
        free = shutil.disk_usage(self.work).free
        if total - there > free - SPARE:
            raise ModelDiskFull(
                f"the model has {total / GB:.2f} GB, {there / GB:.2f} are loaded, the volume has "
                f"{max(0, free - SPARE) / GB:.2f} left; give it more room"
            )

    def part(self, name: str, file: RemoteFile) -> "Part":
        """One file's place while it is loaded."""
        return Part(self._files, self._parts, name, file)

    def publish(self, names: Iterable[str], about: Mapping[str, object]) -> None:
        """Show the loaded files, and nothing else, as the model's folder."""
        wanted = set(names)
        for path in sorted(self._files.rglob("*"), reverse=True):
            if path.is_symlink() or not path.is_dir():
                if str(path.relative_to(self._files)) not in wanted:
                    path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()
        sizes = {name: _size(self._files / name) for name in sorted(wanted)}
        _write(self._files / MANIFEST, json.dumps({**about, "files": sizes}).encode())
        for path in (self._files, *(p for p in self._files.rglob("*") if p.is_dir())):
            _sync(path)
        if os.path.lexists(self.folder):
            self.folder.rename(self._aside)  # an incomplete one; engines keep what they opened
        self._files.rename(self.folder)
        _sync(self.folder.parent)
        self._remove(self._aside)

    def sweep(self) -> None:
        """Remove what loaders that were killed had put aside; nobody reads it."""
        for path in self.folder.parent.glob(f".{self.folder.name}.old-*"):
            self._remove(path)

    def clear(self) -> None:
        """Remove the work folder, with the lease in it."""
        self.work.rename(self._aside)
        self._remove(self._aside)

    def _remove(self, path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


class Part:
    """A file that is being loaded: its bytes so far and what they add up to."""

    def __init__(self, files: Path, parts: Path, name: str, file: RemoteFile) -> None:
        self._root = files
        self._target = files / name
        key = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._data = parts / key
        self._state = parts / f"{key}.json"
        self._file = file
        self._check = Check((), 0)
        self._descriptor = -1
        self._allowed = 0  # bytes until the next look at what is free
        self.size = 0  # bytes that are there and counted in

    @property
    def _same(self) -> bool:
        """Whether what lies here is of the file that is listed now."""
        try:
            return bool(self._file.identity) and self._state.read_text() == self._file.identity
        except (OSError, ValueError):
            return False

    @property
    def finished(self) -> bool:
        """Whether the whole file is there and verified."""
        return self._same and _size(self._target) == self._file.size

    @property
    def there(self) -> int:
        """Bytes that need not be loaded."""
        if self.finished:
            return self._file.size or 0
        return (_size(self._data) or 0) if self._same else 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open for appending after what an earlier load left of the same file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        same = self._same
        if not same:
            self._data.unlink(missing_ok=True)  # not truncated: another may still write to it
            _write(self._state, self._file.identity.encode())
        self._descriptor = os.open(self._data, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise ModelPathUnsafe(f"{self._data} on the model's volume is no file")
            self._count()
            yield
        finally:
            os.close(self._descriptor)

    def _count(self) -> None:
        """Add up what is there."""
        self.size = 0
        self._check = Check(self._file.digests, self._file.size or 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while data := os.read(self._descriptor, CHUNK):
            self._check.update(data)
            self.size += len(data)

    def write(self, data: bytes) -> None:
        """Append. Raises ModelDiskFull where nobody could tell before that it would not fit."""
        if self._file.size is None:
            self._take(len(data))
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._check.update(data)
        self.size += len(data)

    def _take(self, count: int) -> None:
        """See that `count` more bytes fit; what was loaded is of no use when they do not."""
        if count > self._allowed:
            free = shutil.disk_usage(self._descriptor).free - SPARE
            if count > free:
                self.discard()
                raise ModelDiskFull(
                    f"the source does not say how long the file is; after {self.size / GB:.2f} GB "
                    "the volume has no more room; give it more"
                )
            self._allowed = min(free, STRIDE)
        self._allowed -= count

    def restart(self) -> None:
        """Forget the bytes."""
        os.ftruncate(self._descriptor, 0)
        self._count()

    def wrong(self) -> Digest | None:
        """The first digest that does not hold."""
        return self._check.wrong()

    def discard(self) -> None:
        """Remove what is there."""
        self._data.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Move the verified bytes to their name."""
        os.fsync(self._descriptor)
        for parent in reversed(self._target.relative_to(self._root).parents[:-1]):
            real_folder(self._root / parent)
        self._data.rename(self._target)


def real_folder(path: Path) -> None:
    """Make a folder, or see that it is one and no link. Raises ModelPathUnsafe."""
    with suppress(FileExistsError):
        path.mkdir()
    check_folder(path)


def check_folder(path: Path) -> None:
    """See that a path is a folder and no link.

    Raises ModelPathUnsafe, or FileNotFoundError when nothing is there.
    """
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise ModelPathUnsafe(f"{path} on the model's volume is no folder")


def _size(path: Path) -> int | None:
    """The size of a regular file, None of anything else."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(path)


def _sync(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
