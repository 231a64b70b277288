"""What all custom resources share: naming, strictness, CEL rules, metadata.

Python names are snake_case, fields of objects camelCase. Who refuses unknown fields is the API
server, by the generated schema, and we where nobody else looks (files). In an object that the API
server has taken they are a newer version's, and no reader may fail on them: the definitions and the
operator are upgraded first, while older gateways still serve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from overspill.api.names import API_VERSION


def _camel(name: str) -> str:
    """``base_url`` → ``baseURL``; everything else as pydantic does it."""
    return "baseURL" if name == "base_url" else to_camel(name)


@dataclass(frozen=True)
class Rule:
    """One CEL rule of the CRD: ``self`` is the object it stands on.

    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
    """

    rule: str
    message: str


class Model(BaseModel):
    """A part of a custom resource."""

    model_config = ConfigDict(
        alias_generator=_camel, populate_by_name=True, extra="forbid", frozen=True
    )
    cel_rules: ClassVar[tuple[Rule, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values under the object's own field names, without nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


M = TypeVar("M", bound=type[Model])


def cel(rule: str, message: str) -> Callable[[M], M]:
    """Class decorator: add a CEL rule, with the message that the API server answers."""

    def add(model: M) -> M:
        model.cel_rules = (Rule(rule, message), *model.cel_rules)
        return model

    return add


class Metadata(BaseModel):
    """The parts of ObjectMeta that we read. What else it holds is none of our business."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class InvalidObject(ValueError):
    """An object that does not fit its schema; the text names each field and its fault.

    Happens only when an object was stored under an older schema: do not retry before it changes.
    """


class Resource(Model):
    """A custom resource as a whole."""

    kind: ClassVar[str]
    plural: ClassVar[str]
    singular: ClassVar[str]
    short_name: ClassVar[str]

    metadata: Metadata

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @classmethod
    def parse(cls, raw: dict[str, Any], *, unknown: Literal["ignore", "forbid"] = "ignore") -> Self:
        """Turn an object from the API server into a typed one.

        :param raw: the object as JSON values.
        :param unknown: what to do with fields that we do not know: ``forbid`` for an object that
            no API server has checked.
        :raises InvalidObject: with every wrong field and what is wrong with it.
        """
        fields = {k: raw[k] for k in ("metadata", "spec", "status") if k in raw}
        try:
            return cls.model_validate(fields, extra=unknown)
        except ValidationError as error:
            raise InvalidObject(describe(error)) from error

    def reference(self) -> dict[str, Any]:
        """Return the owner reference that ties a child to this object."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def describe(error: ValidationError) -> str:
    """Return one line that names each wrong field, without its value (it may be a secret)."""
    parts = (f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
    return "; ".join(parts)
