"""Faults that end an engine, each with its reason and exit status.

    EngineError
    ├── InvalidOptions   2  an environment variable is missing or wrong
    ├── ModelNotFound    3  nothing to load at the path
    ├── ModelAmbiguous   3  more than one model at the path
    ├── ModelLoadFailed  4  the engine refused the model or a setting
    ├── EngineCrashed    5  the engine ended by itself after it had started
    └── ModelDoesNotFit  6  weights, KV cache and overhead need more memory than there is

The class name is the reason that the operator shows in a condition. A restart alone heals
only EngineCrashed; the others wait for a change of the service or of its volume.
"""


class EngineError(Exception):
    """Something that ends this engine; the message says what to do."""

    exit_status = 1

    @property
    def reason(self) -> str:
        """CamelCase reason, as in a Kubernetes condition."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"


class InvalidOptions(EngineError):
    """An option cannot be used."""

    exit_status = 2


class ModelNotFound(EngineError):
    """There is no model at the path."""

    exit_status = 3


class ModelAmbiguous(EngineError):
    """There is more than one model at the path."""

    exit_status = 3


class ModelLoadFailed(EngineError):
    """The engine could not start with this model and these settings."""

    exit_status = 4


class EngineCrashed(EngineError):
    """The engine ended although nobody asked it to."""

    exit_status = 5


class ModelDoesNotFit(EngineError):
    """The model with this context and these sequences needs more memory than there is."""

    exit_status = 6
