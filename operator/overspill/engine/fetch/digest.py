"""What the bytes of a file must add up to."""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

LENGTHS = {"sha256": 64, "sha1": 40, "git": 40, "md5": 32, "crc32": 8}  # hexadecimal digits


class Sum(Protocol):
    """A running digest."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class Digest:
    """One digest. `git` is the SHA-1 that git gives a blob: of a header and the content."""

    algorithm: str
    value: str  # hexadecimal, lower case

    def __post_init__(self) -> None:
        """Refuse a short or malformed one: it would prove less than it seems to."""
        if not re.fullmatch(rf"[0-9a-f]{{{LENGTHS[self.algorithm]}}}", self.value):
            raise ValueError(f"a {self.algorithm} has {LENGTHS[self.algorithm]} digits")

    @classmethod
    def from_base64(cls, algorithm: str, text: str) -> "Digest | None":
        """A digest as S3 writes it; None when it is not one of a whole object."""
        try:
            return cls(algorithm, base64.b64decode(text, validate=True).hex())
        except (binascii.Error, ValueError):
            return None


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _begin(digest: Digest, size: int) -> Sum:
    if digest.algorithm == "crc32":
        return _Crc32()
    if digest.algorithm == "git":
        # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.new(digest.algorithm, usedforsecurity=digest.algorithm == "sha256")


class Check:
    """Adds up a file's bytes for all its digests."""

    def __init__(self, digests: Iterable[Digest], size: int) -> None:
        """Begin; `size` is the file's, in bytes."""
        self._sums = [(digest, _begin(digest, size)) for digest in digests]

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        for _, running in self._sums:
            running.update(data)

    def wrong(self) -> Digest | None:
        """The first digest that does not hold, None when all do."""
        return next((d for d, running in self._sums if running.hexdigest() != d.value), None)
