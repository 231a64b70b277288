"""One remote file, as a listing describes it."""

import json
from dataclasses import dataclass

from overspill.engine.fetch.digest import Digest


@dataclass(frozen=True)
class RemoteFile:
    """Where its bytes are and what they must be.

    `validator` is a strong ETag or a Last-Modified date, by which the server can tell whether the
    file is still the same (RFC 9110, If-Range); "" when it gives neither.
    """

    url: str
    size: int | None = None  # bytes; None: the server does not say
    digests: tuple[Digest, ...] = ()
    validator: str = ""

    @property
    def identity(self) -> str:
        """Equal for two listings only if the bytes are the same; "" when nobody can tell."""
        if self.size is None or not (self.digests or self.validator):
            return ""
        known = [[d.algorithm, d.value] for d in self.digests]
        return json.dumps([self.size, known, self.validator])
