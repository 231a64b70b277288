"""The InferenceProvider: one cloud account, with its models and their prices."""

from enum import StrEnum
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from overspill.api.base import Model, Resource, cel
from overspill.api.budget import BudgetSpec, SpentStatus
from overspill.api.conditions import Condition
from overspill.api.identifiers import URL_PATTERN, ObjectName
from overspill.api.names import MAX_NAME_LENGTH
from overspill.api.values import Duration, Money

NamespaceOrAll = Annotated[
    str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", max_length=63)
]


AzureVersion = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$", max_length=18)
]


class ProviderType(StrEnum):
    """Whose API the provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    REPLICATE = "replicate"
    OPENAI_COMPATIBLE = "openai-compatible"


class ModelInput(StrEnum):
    """An input of a language model at Replicate, where each model has names of its own.

    https://replicate.com/docs/topics/models/official-models
    """

    PROMPT = "prompt"
    MESSAGES = "messages"
    SYSTEM_PROMPT = "system_prompt"
    SYSTEM_INSTRUCTION = "system_instruction"
    IMAGE = "image"
    IMAGE_INPUT = "image_input"
    IMAGES = "images"
    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    MAX_NEW_TOKENS = "max_new_tokens"
    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    TOP_K = "top_k"
    SEED = "seed"
    STOP_SEQUENCES = "stop_sequences"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    REASONING_EFFORT = "reasoning_effort"
    VERBOSITY = "verbosity"


DEFAULT_PORT = {"https": 443, "http": 80}
DEFAULT_BASE_URL = {
    ProviderType.OPENAI: "https://api.openai.com/v1",
    ProviderType.ANTHROPIC: "https://api.anthropic.com/v1",
    ProviderType.REPLICATE: "https://api.replicate.com/v1",
}
REPLICATE_STREAMS = "stream.replicate.com"  # where the events of api.replicate.com are


def destination(url: str) -> tuple[str, int]:
    """Return the host of a URL (lower case, no final dot, no brackets) and its port.

    The port is the scheme's own where the URL has none. ``("", 0)`` for what is nobody's:
    the pattern of URLs leaves IPv6 literals that are none.
    """
    try:
        found = urlsplit(url)
        host = (found.hostname or "").removesuffix(".")
        return host, found.port or DEFAULT_PORT[found.scheme]
    except (ValueError, KeyError):
        return "", 0


class SecretKeyRef(Model):
    """A value of a Secret in the provider's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = Field(
        "api-key", description="Key inside the Secret."
    )


class Price(Model):
    """US dollars per million tokens."""

    input_per_m_tok: Money = Field(description="Prompt tokens.")
    cached_input_per_m_tok: Money | None = Field(
        None, description="Prompt tokens that the provider had cached. Default: as inputPerMTok."
    )
    output_per_m_tok: Money = Field(description="Answer tokens.")


@cel(
    "!has(self.inputs) || (self.inputs.exists(i, i == 'prompt' || i == 'messages') "
    "&& self.inputs.exists(i, i.startsWith('max_')))",
    "inputs must name prompt or messages, and the limit of an answer (max_tokens, "
    "max_completion_tokens, max_output_tokens or max_new_tokens)",
)
class ProviderModel(Model):
    """A model that the account offers."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="As the provider spells it."
    )
    price: Price | None = Field(
        None,
        description="Default: that of the bundled price list, where it knows the model at this "
        "provider. Without a price no request spills to this model.",
    )
    inputs: list[ModelInput] | None = Field(
        None,
        min_length=1,
        max_length=len(ModelInput),
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="For type replicate only, and required there: which of these inputs the "
        "model's API page lists. What a model is not told to take is not sent to it.",
    )


@cel("duration(self.connect) > duration('0s')", "connect must be longer than 0s")
@cel("duration(self.firstByte) > duration('0s')", "firstByte must be longer than 0s")
@cel("duration(self.idle) > duration('0s')", "idle must be longer than 0s")
class TimeoutsSpec(Model):
    """How long to wait for the provider."""

    connect: Duration = Field("3s", description="For a connection, TLS included.")
    first_byte: Duration = Field("20s", description="From the sent request to the first content.")
    idle: Duration = Field("30s", description="Between two pieces of an answer.")


class LimitsSpec(Model):
    """What the account allows; all gateways together keep to it."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        None, description="Requests in a minute, with five seconds' worth at once. Default: any."
    )
    tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        None,
        description="Tokens of prompts and answers in a minute, with five seconds' worth at once. "
        "A request counts with its max_tokens until it has ended. Default: any.",
    )
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Requests at a time. Default: 256 from each gateway."
    )


@cel(
    "self.type != 'replicate' || self.models.all(m, has(m.inputs) "
    "&& m.name.matches('^[A-Za-z0-9][-._A-Za-z0-9]*/[A-Za-z0-9][-._A-Za-z0-9]*$'))",
    "type replicate needs models named owner/name, each with its inputs, for example "
    "{name: meta/meta-llama-3-70b-instruct, inputs: [prompt, system_prompt, max_tokens]}",
)
@cel(
    "self.type == 'replicate' || !self.models.exists(m, has(m.inputs))",
    "models[].inputs are for type replicate only",
)
@cel(
    "self.type != 'openai-compatible' || has(self.baseURL)",
    "baseURL is required for type openai-compatible, for example https://llm.example.com/v1",
)
@cel(
    "!has(self.baseURL) || self.baseURL.startsWith('https://') || self.insecure",
    "baseURL must begin with https://; plain http needs insecure: true",
)
@cel(
    "!has(self.baseURL) || (isURL(self.baseURL) && url(self.baseURL).getHost() != '')",
    "baseURL must be a URL with a host",
)
@cel(
    "!has(self.azureApiVersion) || (self.type == 'openai' && has(self.baseURL))",
    "azureApiVersion needs type openai and the resource's baseURL, for example "
    "https://example.openai.azure.com/openai",
)
class InferenceProviderSpec(Model):
    """The account."""

    type: ProviderType = Field(description="Whose API the provider speaks.")
    base_url: Annotated[str, Field(pattern=URL_PATTERN, max_length=500)] | None = Field(
        None,
        description="Up to and with /v1, in ASCII. Default for openai: https://api.openai.com/v1, "
        "for anthropic: https://api.anthropic.com/v1, for replicate: https://api.replicate.com/v1.",
    )
    azure_api_version: AzureVersion | None = Field(
        None,
        description="Azure's dated API, for example 2024-10-21: baseURL is then the resource's, up "
        "to and with /openai, and a model's name is that of its deployment. Not needed where "
        "baseURL ends with /openai/v1.",
    )
    insecure: bool = Field(
        False, description="Allow plain http, so that the key travels unencrypted."
    )
    secret_ref: SecretKeyRef = Field(
        description="The API key. Its Secret must list baseURL's host in the annotation "
        "overspill.dev/provider-hosts, with the port where baseURL has one, or the key is sent "
        f"nowhere; for replicate without baseURL {REPLICATE_STREAMS}, too."
    )
    allowed_namespaces: list[NamespaceOrAll] = Field(
        default_factory=list,
        max_length=64,
        description='Namespaces whose services may spill here, ["*"] for all. Default: its own.',
    )
    models: list[ProviderModel] = Field(
        min_length=1,
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
        description="Models of the account, each with its price.",
    )
    limits: LimitsSpec = Field(
        default_factory=LimitsSpec,
        description="Requests and tokens that it may get. At its limit it is skipped.",
    )
    timeouts: TimeoutsSpec = Field(default_factory=TimeoutsSpec, description="How long to wait.")
    budget: BudgetSpec | None = Field(
        None, description="What all services together may spend here. Default: no limit."
    )

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return (self.base_url or DEFAULT_BASE_URL[self.type]).rstrip("/")

    @property
    def host(self) -> str:
        """Where the key is sent, as ``destination`` tells it; "" when nowhere."""
        return destination(self.url)[0]

    @property
    def destinations(self) -> list[tuple[str, int]]:
        """All hosts and ports that the key is sent to; the base URL's comes first."""
        streams = self.type is ProviderType.REPLICATE and self.base_url is None
        return [destination(self.url), *([(REPLICATE_STREAMS, 443)] if streams else [])]

    def inputs_of(self, model: str) -> frozenset[ModelInput]:
        """Return the inputs that a model takes, where each has its own (type replicate)."""
        return next(
            (frozenset(m.inputs or ()) for m in self.models if m.name == model), frozenset()
        )


class ListPrice(Model):
    """US dollars per million tokens, of requests whose prompts are longer than some length."""

    model: str = Field(max_length=200, description="One of spec.models.")
    prompts_above: int = Field(0, ge=0, description="Tokens; 0: of all that no other row is for.")
    input_per_m_tok: str = Field(max_length=32, description="Prompt tokens.")
    cached_input_per_m_tok: str = Field(max_length=32, description="Those that were cached.")
    output_per_m_tok: str = Field(max_length=32, description="Answer tokens.")


class PriceListStatus(Model):
    """What the bundled price list says of models that have no price in spec.models."""

    published: str = Field(
        json_schema_extra={"format": "date"}, description="Day on which the list was published."
    )
    prices: list[ListPrice] = Field(
        default_factory=list, max_length=256, description="Those that are used."
    )


class InferenceProviderStatus(Model):
    """What is."""

    observed_generation: int = Field(0, ge=0, description="metadata.generation last acted upon.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=8,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        description="Ready, WithinBudget, PricesCurrent.",
    )
    spent: SpentStatus | None = Field(None, description="What of the budget is spent.")
    price_list: PriceListStatus | None = Field(
        None, description="Prices that spec.models does not give."
    )


@cel(
    f"self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') "
    f"&& size(self.metadata.name) <= {MAX_NAME_LENGTH}",
    f"metadata.name must be a DNS-1035 label (a-z, 0-9, -; first a letter) of at most "
    f"{MAX_NAME_LENGTH} characters",
)
class InferenceProvider(Resource):
    """A cloud account that services may spill to."""

    kind: ClassVar[str] = "InferenceProvider"
    plural: ClassVar[str] = "inferenceproviders"
    singular: ClassVar[str] = "inferenceprovider"
    short_name: ClassVar[str] = "infprov"

    spec: InferenceProviderSpec
    status: InferenceProviderStatus = Field(default_factory=InferenceProviderStatus)

    def allows(self, namespace: str) -> bool:
        """Whether services of that namespace may spill here."""
        allowed = self.spec.allowed_namespaces or [self.metadata.namespace]
        return namespace in allowed or "*" in allowed
