"""The InferenceRuntime: an engine of the user's own.

Its arguments have a closed list of placeholders and no template language: nothing that a user
writes is ever evaluated (see docs/adr/0011-placeholders-of-an-inference-runtime.md).
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from overspill.api.base import Model, Resource, cel
from overspill.api.engine import BUNDLED, Variables
from overspill.api.names import DEFAULT_METRICS_PATH, ENGINE_PORT, MAX_NAME_LENGTH

PLACEHOLDERS = ("MODEL_PATH", "PORT", "SERVED_NAME", "CONTEXT_LENGTH", "MAX_SEQUENCES")
# Also of engines that may come to be bundled one day.
RESERVED = (*BUNDLED, "sglang", "none")

_SHOWN = ", ".join(f"$({name})" for name in PLACEHOLDERS)
_CEL_LIST = ", ".join(f"'$({name})'" for name in PLACEHOLDERS)

Word = Annotated[str, Field(max_length=1024)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/-]*$", max_length=200)]
MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=200)]


def _placeholders_rule(field: str) -> str:
    return (
        f"!has(self.{field}) || self.{field}.all(w, "
        f"w.findAll('[$][(][A-Z0-9_]+[)]').all(p, p in [{_CEL_LIST}]))"
    )


class RuntimeAPI(StrEnum):
    """APIs that the gateway can ask an engine in."""

    OPENAI = "openai"


class ProbesSpec(Model):
    """HTTP paths that say how the engine is; 200 means good."""

    startup: Path = Field(
        "/health",
        description="Good once the model is loaded, and for as long as the engine lives: after "
        "90 s without an answer it is started anew.",
    )
    readiness: Path = Field("/health", description="Good while the engine can answer.")


class MetricsSpec(Model):
    """Where the engine exports Prometheus metrics, and which of them say how busy it is."""

    path: Path = Field(DEFAULT_METRICS_PATH, description="HTTP path on the engine's port.")
    running: MetricName | None = Field(
        None,
        description="Gauge of the requests that are computed now. A stopping replica waits until "
        "it is 0.",
    )
    waiting: MetricName | None = Field(
        None, description="Gauge of the requests that wait in the engine."
    )
    kv_usage: MetricName | None = Field(None, description="Gauge of the KV cache's use, 0 to 1.")


@cel(
    "!has(self.env) || !self.env.exists(v, v.name.startsWith('OVERSPILL_'))",
    "env: names that begin with OVERSPILL_ are set by Overspill",
)
@cel(_placeholders_rule("command"), f"command: a placeholder must be one of {_SHOWN}")
@cel(_placeholders_rule("args"), f"args: a placeholder must be one of {_SHOWN}")
class InferenceRuntimeSpec(Model):
    """The engine."""

    image: Annotated[
        str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]*[A-Za-z0-9]$", max_length=500)
    ] = Field(
        description="The engine's image, best by digest. It runs as user 10001 with a read-only "
        "root; /tmp and $HOME can be written."
    )
    command: Annotated[list[Word], Field(max_length=16)] = Field(
        default_factory=list, description="Instead of the image's entry point."
    )
    args: Annotated[list[Word], Field(max_length=64)] = Field(
        default_factory=list,
        description=f"Arguments. In these and in command, {_SHOWN} are replaced; every other $ "
        "stands for itself.",
    )
    env: Variables = Field(default_factory=list, description="Environment variables.")
    port: int = Field(
        ENGINE_PORT, ge=1024, le=65535, description="Where the engine listens for HTTP."
    )
    api: RuntimeAPI = Field(RuntimeAPI.OPENAI, description="The API that the engine speaks.")
    probes: ProbesSpec = Field(default_factory=ProbesSpec, description="How the engine is.")
    metrics: MetricsSpec = Field(default_factory=MetricsSpec, description="How busy it is.")


@cel(
    f"self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') "
    f"&& size(self.metadata.name) <= {MAX_NAME_LENGTH}",
    f"metadata.name must be a DNS-1035 label (a-z, 0-9, -; first a letter) of at most "
    f"{MAX_NAME_LENGTH} characters",
)
@cel(
    f"!(self.metadata.name in [{', '.join(repr(name) for name in RESERVED)}])",
    f"metadata.name must be none of {', '.join(RESERVED)}: these mean something in engine.runtime",
)
class InferenceRuntime(Resource):
    """An engine of the user's own, for services of its namespace that name it."""

    kind: ClassVar[str] = "InferenceRuntime"
    plural: ClassVar[str] = "inferenceruntimes"
    singular: ClassVar[str] = "inferenceruntime"
    short_name: ClassVar[str] = "infrt"

    spec: InferenceRuntimeSpec
