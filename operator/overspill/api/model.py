"""The model of a service: where its weights are, and how they get to a replica."""

import re
from typing import Annotated

from pydantic import Field

from overspill.api.base import Model, cel
from overspill.api.identifiers import PORT, URL_PATTERN, ObjectName

# A model name as clients send it. No slash: "namespace/name" addresses a service exactly.
ServedName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$", max_length=100)
]
_PART = r"/[A-Za-z0-9_][A-Za-z0-9._+=-]*"  # of a path; begins with no dot, so never ".."
_REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_OCI = r"oci://[a-z0-9][A-Za-z0-9._:/@-]*[A-Za-z0-9]"
_PVC = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
_HF = rf"hf://{_REPOSITORY}/{_REPOSITORY}(@{_REPOSITORY})?({_PART})*"
_S3 = rf"s3://[a-z0-9][a-z0-9.-]*[a-z0-9]({_PART})+/?"
_HTTPS = rf"https://[a-z0-9]([-a-z0-9.]*[a-z0-9])?({PORT})?({_PART})*{_PART}[.](gguf|safetensors)"
ModelURI = Annotated[str, Field(pattern=f"^({_OCI}|{_PVC}|{_HF}|{_S3}|{_HTTPS})$", max_length=500)]
MountedURI = Annotated[str, Field(pattern=f"^({_OCI}|{_PVC})$", max_length=500)]
# One file that is loaded, not a folder, a repository or a prefix.
FILE = r"^(hf://[^/]+/[^/]+|s3:/|https:/)/(.*/)?[^/]+[.](gguf|safetensors)$"
_LOADED = "self.uri.matches('^(hf|s3|https)://')"


class SecretRef(Model):
    """A Secret of this namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class CacheSpec(Model):
    """Where loaded models are kept."""

    claim_name: ObjectName = Field(
        description="A PersistentVolumeClaim of this namespace, shared by all replicas and by "
        "every service that names it (ReadWriteMany, or one node)."
    )


@cel(
    f"!has(self.sha256) || self.uri.matches('{FILE}')",
    "sha256 is of one file: uri must be hf://, s3:// or https:// and end with .gguf or "
    ".safetensors",
)
@cel(
    f"!has(self.secretRef) || {_LOADED}",
    "secretRef is for hf://, s3:// and https:// only; an image is pulled with the chart's "
    "engine.pullSecrets",
)
@cel(
    "!has(self.endpoint) || self.uri.matches('^(hf|s3)://')",
    "endpoint is for hf:// and s3:// only",
)
@cel(f"!has(self.cache) || {_LOADED}", "cache is for hf://, s3:// and https:// only")
class ModelSpec(Model):
    """What is served."""

    uri: ModelURI = Field(
        description="Where the weights are: oci://image (an OCI image or artifact, mounted "
        "read-only; Kubernetes 1.35 or newer), pvc://claim/path (a file or a folder on a "
        "PersistentVolumeClaim of this namespace), hf://organisation/repository[@revision][/path], "
        "s3://bucket/key-or-prefix, or https://host/path of one .gguf or .safetensors file. The "
        "last three are loaded before a replica starts."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)] | None = Field(
        None, description="Digest of the one file that uri names; another one is refused."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Credentials for hf://, s3:// and https://. Keys: hosts (required, a comma "
        "list: to no other host are they sent), token, accessKeyID, secretAccessKey, sessionToken, "
        "ca.crt (authorities to trust beside the public ones).",
    )
    endpoint: Annotated[str, Field(pattern=URL_PATTERN, max_length=500)] | None = Field(
        None,
        description="URL of another hub or S3 API. Default: https://huggingface.co, and AWS's S3.",
    )
    cache: CacheSpec | None = Field(
        None, description="Keep what is loaded on a volume. Default: each pod loads for itself."
    )
    served_name: ServedName | None = Field(
        None, description="The model name that clients send. Default: the object's name."
    )
    context_length: int | None = Field(
        None,
        ge=128,
        le=10_000_000,
        description="Tokens of prompt plus answer that one request may use. Default: the model's.",
    )

    @property
    def scheme(self) -> str:
        """``oci``, ``pvc``, ``hf``, ``s3`` or ``https``."""
        return self.uri.partition("://")[0]

    @property
    def loaded(self) -> bool:
        """Whether a loader fetches the model, instead of a volume that has it."""
        return self.scheme in ("hf", "s3", "https")

    @property
    def file_name(self) -> str:
        """Name of the one file that is loaded, "" where it is a folder."""
        return self.uri.rpartition("/")[2] if re.match(FILE, self.uri) else ""
