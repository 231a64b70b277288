"""What this program asks of an engine: how to start it, and how to read what it tells.

Everything else (signals, drain, logs, the termination message) is the same for all engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overspill.engine.errors import EngineError
from overspill.engine.fit import Formula
from overspill.engine.options import Options


@dataclass(frozen=True)
class Launch:
    """A program to start: its arguments, and what is added to its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


class Engine(Protocol):
    """One engine. Its server answers `/health` with 200 once the model is loaded."""

    @property
    def title(self) -> str:
        """Its name in logs and messages."""

    @property
    def running(self) -> str:
        """The gauge of its `/metrics` page that counts the requests it computes."""

    @property
    def waiting(self) -> str:
        """The gauge that counts the requests it has not begun."""

    @property
    def loading(self) -> int | None:
        """The status of that page while it loads its model; None where nothing listens then."""

    @property
    def ready_line(self) -> str | None:
        """Part of the line that says that it serves; None where its exit status tells."""

    def find(self, path: Path) -> Path:
        """The model at `path`. Raises ModelNotFound or ModelAmbiguous."""

    @property
    def smaller_cache(self) -> str:
        """Its smallest KV cache type, in neutral words."""

    def share(self, options: Options) -> float:
        """The share of an accelerator's memory that it takes."""

    def formula(self, options: Options, model: Path) -> Formula:
        """What `model` needs, for any options. Raises UnknownShape."""

    def launch(self, options: Options, model: Path, spare: int | None) -> Launch:
        """How to serve `model`. Raises EngineError.

        :param spare: bytes of the container's memory beyond the model's need; None: no limit.
        """

    def fault(self, status: int, lines: Sequence[str], served: bool) -> EngineError | None:
        """What the end with `status` after these last lines means; None: nothing special.

        `served` says whether the engine had loaded its model before.
        """
