"""Faults of a load, beside those of `overspill.engine.errors`; exit status 6 for all.

    EngineError
    ├── ModelNotFound, ModelAmbiguous, InvalidOptions   as of an engine
    └── LoadFailed              6
        ├── ModelForbidden          the source refuses, with or without our credential
        ├── ModelDigestMismatch     the bytes are not those that were announced
        ├── ModelSecretRefused      the Secret does not name the host, or must not go there
        ├── ModelSourceUnreachable  no answer, or none that can be used, after several tries
        ├── ModelDiskFull           the volume has no room
        └── ModelPathUnsafe         a name or a link that would lead out of the folder

Two more never leave the loader: `Interrupted` (try again) and `SourceChanged` (list again).
No message quotes what a server wrote, since that may repeat what we sent.
"""

from overspill.engine.errors import EngineError


class LoadFailed(EngineError):
    """A load that ended."""

    exit_status = 6


class ModelForbidden(LoadFailed):
    """The source does not let us have the model."""


class ModelDigestMismatch(LoadFailed):
    """A file is not what its digest says; what was loaded of it is discarded."""


class ModelSecretRefused(LoadFailed):
    """The credential may not be sent there."""


class ModelSourceUnreachable(LoadFailed):
    """The source gives no usable answer."""


class ModelDiskFull(LoadFailed):
    """There is no room for the model."""


class ModelPathUnsafe(LoadFailed):
    """A remote name, or what lies on the volume, would lead out of the model's folder."""


class Interrupted(Exception):
    """A request failed in a way that another try may mend.

    `retry_after` is what the server asked for, in seconds.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceChanged(Exception):
    """A file is another one than when it was listed."""


class Stopped(Exception):
    """Another part of this load ended it."""
