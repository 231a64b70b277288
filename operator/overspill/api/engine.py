"""How a service's model is run, in words that hold for every engine."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from overspill.api.base import Model, cel
from overspill.api.identifiers import VariableName
from overspill.api.model import MountedURI
from overspill.api.names import MAX_NAME_LENGTH
from overspill.api.values import Quantity

AUTO = "auto"
VLLM = "vllm"
LLAMACPP = "llamacpp"
BUNDLED = (AUTO, VLLM, LLAMACPP)

# What one replica computes at the same time. llama.cpp: slots share the KV cache and the cores;
# beyond four a CPU only answers all of them slower.
DEFAULT_MAX_SEQUENCES = {LLAMACPP: 4, VLLM: 64}
DEFAULT_MAX_SEQUENCES_CUSTOM = 8

RuntimeName = Annotated[
    str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=MAX_NAME_LENGTH)
]


class Quantization(StrEnum):
    """Numbers that weights are stored as."""

    NONE = "none"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"


class CacheDtype(StrEnum):
    """Numbers that the KV cache is stored as."""

    AUTO = "auto"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"


class BatchingSpec(Model):
    """Continuous batching."""

    max_sequences: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Requests that one replica computes at the same time. Default: 4 (llamacpp), "
        "64 (vllm), 8 (an InferenceRuntime).",
    )
    max_batched_tokens: int | None = Field(
        None,
        ge=32,
        le=1_048_576,
        description="Tokens that one engine step computes at most. Default: the engine's own.",
    )


@cel(
    "!has(self.hostOffload) || quantity(self.hostOffload).isGreaterThan(quantity('0'))",
    "hostOffload must be more than 0",
)
@cel(
    "!has(self.hostOffload) || self.prefixCaching",
    "hostOffload needs prefixCaching: what is offloaded are kept prefixes",
)
class KVCacheSpec(Model):
    """The key-value cache of attention."""

    dtype: CacheDtype = Field(
        CacheDtype.AUTO, description="Numbers it is stored as; auto: the model's own."
    )
    prefix_caching: bool = Field(
        True,
        description="Keep the KV cache of prompts and reuse it where a prompt begins alike. Of "
        "several replicas, the one that has most of a prompt gets it, unless it is too busy.",
    )
    host_offload: Quantity | None = Field(
        None,
        description="Bytes of the host's memory for prefixes that no longer fit, per replica; "
        "part of resources.memory.",
    )


class DraftModel(Model):
    """A small model that guesses."""

    uri: MountedURI = Field(description="oci://image or pvc://claim/path, as in model.uri.")


@cel(
    "(self.method == 'draft') == has(self.draftModel)",
    "draftModel is required with method draft, and only there",
)
class SpeculativeSpec(Model):
    """Guess some tokens, check them in one step: faster answers, the same text."""

    method: Literal["ngram", "draft"] = Field(
        description="ngram: guess from what stands in the prompt and the answer; draft: by a "
        "small model of the same vocabulary."
    )
    tokens: int = Field(4, ge=1, le=16, description="Tokens guessed at a time.")
    draft_model: DraftModel | None = Field(None, description="The model of method draft.")


class ParallelismSpec(Model):
    """How a model is spread over the accelerators of one replica."""

    tensor: int = Field(1, ge=1, le=16, description="Parts that each layer is split into.")
    pipeline: int = Field(1, ge=1, le=16, description="Parts that the layers are shared among.")


class Variable(Model):
    """An environment variable."""

    name: VariableName = Field(description="Its name.")
    value: Annotated[str, Field(max_length=4096)] = Field(
        "", description="Its value as it stands; $(NAME) is not expanded."
    )


Variables = Annotated[
    list[Variable],
    Field(
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    ),
]
Arguments = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)
]


@cel(
    "!has(self.env) || !self.env.exists(v, v.name.startsWith('OVERSPILL_'))",
    "env: names that begin with OVERSPILL_ are set by Overspill",
)
class EngineSpec(Model):
    """How the model is run, in words that hold for every engine.

    An option that the chosen engine lacks is refused in the condition ReplicasReady.
    """

    runtime: RuntimeName = Field(
        AUTO,
        description="auto (vllm with resources.accelerator, else llamacpp), vllm, llamacpp, or "
        "the name of an InferenceRuntime of this namespace.",
    )
    quantization: Quantization = Field(
        Quantization.NONE,
        description="What the weights are converted to on loading; none: served as they are.",
    )
    kv_cache: KVCacheSpec = Field(default_factory=KVCacheSpec, description="The KV cache.")
    batching: BatchingSpec = Field(default_factory=BatchingSpec, description="Continuous batching.")
    speculative: SpeculativeSpec | None = Field(None, description="Speculative decoding.")
    parallelism: ParallelismSpec = Field(
        default_factory=ParallelismSpec,
        description="Spreading over the accelerators of one replica; tensor x pipeline is "
        "resources.accelerator.count.",
    )
    args: Arguments = Field(
        default_factory=list,
        description="Options of the engine itself, name=value, applied last. For an "
        "InferenceRuntime: arguments, added to its own.",
    )
    env: Variables = Field(default_factory=list, description="Environment variables of the engine.")
