"""The gateway's objects from a folder: the same YAML as in a cluster, and static endpoints.

Read are ``*.yaml``, ``*.yml`` and ``*.json`` of the folder itself, as by ``kubectl apply -f``.
Nothing else checks these objects, so here a field that we do not know is a fault. A file with a
fault keeps the objects that it had before, and the log says what to mend. Changes are seen by
looking at the files once a second: that works on every file system, and for mounted ConfigMaps.

An engine's endpoints are an EndpointSlice whose label ``kubernetes.io/service-name`` names the
InferenceService. A client's key is a Secret with the label ``overspill.dev/key: "true"``.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError
from pydantic.alias_generators import to_camel

from overspill.api.base import InvalidObject, Metadata, describe
from overspill.api.keys import InvalidKey, parse_key
from overspill.api.names import ENGINE_PORT_NAME, LABEL_KEY, LABEL_SERVICE, LABEL_SLICE_OF
from overspill.api.provider import DEFAULT_BASE_URL, InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.gateway.provider import Provider
from overspill.gateway.secret import read_secret
from overspill.gateway.state import State

log = structlog.get_logger(__name__)

Object = dict[str, Any]
Id = tuple[str, str, str]  # kind, namespace, name
Look = tuple[int, int, int]  # inode, size in bytes, time of its change in ns

SUFFIXES = {".yaml", ".yml", ".json"}
MAX_FILE = 16 * 1024 * 1024  # bytes
LOOK_SECONDS = 1.0
DEFAULT_NAMESPACE = "default"  # of an object that names none, as for kubectl
# Kubernetes' own kinds hold more than is read here.
_OTHERS = ConfigDict(alias_generator=to_camel, extra="ignore")


class InvalidFile(ValueError):
    """A file, or what it says of an object, is wrong; the text names the place and the remedy."""


@dataclass(frozen=True)
class File:
    """What a file held when it was last read without a fault, and the fault that it has now.

    :param looked: how it was at the last look; read once it has stayed so for another.
    :param read: how it was when it was read.
    """

    looked: Look
    read: Look | None = None
    objects: tuple[Object, ...] = ()
    fault: str = ""


Files = Mapping[Path, File]


class Folder:
    """Keeps a state up to date.

    :param on_provider: called when a provider's readiness may have changed.
    """

    def __init__(self, path: Path, state: State, on_provider: Callable[[], None]) -> None:
        self._path, self._state, self._on_provider = path, state, on_provider
        self._files: Files = {}

    def load(self) -> None:
        """Read everything for the first time.

        :raises InvalidFile: with all faults of all files.
        """
        self._files = reread(self._path, {})
        objects, faults = merged(self._files)
        if faults:
            raise InvalidFile("; ".join(faults))
        self._take(objects)

    async def follow(self) -> None:
        """Take changes, for ever."""
        told: list[str] = []
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                files = await asyncio.to_thread(reread, self._path, self._files)
            except InvalidFile as error:
                objects, faults = None, [str(error)]
            else:
                objects, faults = (None, told) if files == self._files else merged(files)
                self._files = files
            for fault in faults if faults != told else ():
                log.warning("objects kept as they were", fault=fault)
            told = faults
            if objects is not None:
                self._take(objects)

    def _take(self, objects: Mapping[Id, Object]) -> None:
        """Let the state be exactly what the files say."""
        state = self._state
        kinds = _by_kind(objects)
        state.keys.replace(s for s in kinds["Secret"] if _is_key(s))
        state.replace_providers(kinds["InferenceProvider"])
        for provider in state.providers.values():
            self._set_secret(provider, objects)
        state.replace_runtimes(kinds["InferenceRuntime"])
        state.replace_services(kinds["InferenceService"])
        state.replace_slices(kinds["EndpointSlice"])
        state.generation += 1
        log.info("objects read", **{kind: len(found) for kind, found in kinds.items()})
        self._on_provider()

    def _set_secret(self, provider: Provider, objects: Mapping[Id, Object]) -> None:
        resource = provider.resource
        found = objects.get(("Secret", resource.metadata.namespace, resource.spec.secret_ref.name))
        secret, reason, message = read_secret(resource, found)
        if (reason, message) != (provider.reason, provider.message):
            log.info("provider key", provider=provider.key, reason=reason, message=message)
        self._state.set_secret(provider.key, secret, reason, message)


def reread(folder: Path, known: Files) -> Files:
    """Return the folder's files; those that have not changed are not read again.

    :raises InvalidFile: when the folder cannot be read.
    """
    files: dict[Path, File] = {}
    try:
        for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES):
            files[path] = _file(path, known.get(path), settled=not known)
    except OSError as error:
        raise InvalidFile(f"{error.filename}: {error.strerror}") from None
    return files


def _file(path: Path, known: File | None, *, settled: bool) -> File:
    """Look at a file, and read it unless it may still be written (an editor empties it first)."""
    found = path.stat()
    look = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = known or File(look if settled else (0, 0, 0))
    if known.read == look:
        return known
    if known.looked != look:
        return replace(known, looked=look)
    try:
        if found.st_size > MAX_FILE:
            raise InvalidFile(f"larger than {MAX_FILE} bytes; split it")
        return File(look, look, tuple(parse(path.read_bytes())))
    except InvalidFile as error:
        return File(look, look, known.objects, f"{path.name}: {error}")


def merged(files: Files) -> tuple[dict[Id, Object], list[str]]:
    """Return all objects, and the faults of all files."""
    objects: dict[Id, Object] = {}
    faults: list[str] = []
    owners: dict[Id, str] = {}
    for path, file in files.items():
        if file.fault:
            faults.append(file.fault)
        for raw in file.objects:
            found = _id(raw)
            if found in objects:
                faults.append(f"{path.name}: {_spelled(found)} is in {owners[found]} already")
            else:
                objects[found], owners[found] = raw, path.name
    return objects, faults


class _Secret(BaseModel):
    """What is read of a Secret."""

    model_config = _OTHERS
    metadata: Metadata
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}


class _Port(BaseModel):
    model_config = _OTHERS
    name: str = ""
    port: int | None = None


class _Endpoint(BaseModel):
    model_config = _OTHERS
    addresses: list[IPvAnyAddress] = Field(min_length=1)
    conditions: dict[str, bool | None] | None = None
    target_ref: dict[str, str] | None = None


class _Slice(BaseModel):
    """What is read of an EndpointSlice."""

    model_config = _OTHERS
    metadata: Metadata
    ports: list[_Port]
    endpoints: list[_Endpoint]


def parse(text: bytes) -> list[Object]:
    """Read and check the objects of one file.

    :raises InvalidFile: with the object, the field and what is wrong with it.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidFile(f"no YAML: {_problem(error)}") from None
    return [_checked(d) for d in documents]


def _problem(error: Exception) -> str:
    """Return what is wrong and where, without the line itself: it may hold a key."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return type(error).__name__
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _checked(raw: Any) -> Object:
    """Return an object as an API server would keep it."""
    found = raw.get("metadata") if isinstance(raw, dict) else None
    metadata: Object = found if isinstance(found, dict) else {}
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidFile("metadata.name: every object needs one")
    check = next((check for kind, check in _CHECKS.items() if kind == raw.get("kind")), None)
    if check is None:
        raise InvalidFile(f"{name}: kind: must be one of {', '.join(_CHECKS)}")
    raw = {**raw, "metadata": {"namespace": DEFAULT_NAMESPACE, **metadata}}
    try:
        return check(raw)
    except ValidationError as error:
        raise InvalidFile(f"{_spelled(_id(raw))}: {describe(error)}") from None
    except (InvalidObject, InvalidKey, InvalidFile) as error:
        raise InvalidFile(f"{_spelled(_id(raw))}: {error}") from None


def _service(raw: Object) -> Object:
    InferenceService.parse(raw, unknown="forbid")
    return raw


def _runtime(raw: Object) -> Object:
    InferenceRuntime.parse(raw, unknown="forbid")
    return raw


def _provider(raw: Object) -> Object:
    """What the definition's rules say of a base URL holds here, too."""
    spec = InferenceProvider.parse(raw, unknown="forbid").spec
    if spec.base_url is None and spec.type not in DEFAULT_BASE_URL:
        raise InvalidFile(f"spec.baseURL: required for type {spec.type}")
    if not spec.url.startswith("https://") and not spec.insecure:
        raise InvalidFile("spec.baseURL: must begin with https://; http needs insecure: true")
    return raw


def _secret(raw: Object) -> Object:
    """``stringData`` goes into ``data``, as the API server does it."""
    read = _Secret.model_validate(raw)
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in read.string_data.items()}
    secret = {"kind": raw["kind"], "metadata": raw["metadata"], "data": read.data | encoded}
    if _is_key(secret):
        parse_key(secret)
    return secret


def _slice(raw: Object) -> Object:
    """A slice that somebody wrote by hand belongs to the service that its label names."""
    read = _Slice.model_validate(raw)
    labels = read.metadata.labels
    owner = labels.get(LABEL_SERVICE) or labels.get(LABEL_SLICE_OF)
    if not owner:
        raise InvalidFile(f"metadata.labels: {LABEL_SLICE_OF} must name the InferenceService")
    if not any(port.name == ENGINE_PORT_NAME and port.port for port in read.ports):
        raise InvalidFile(f"ports: one must be named {ENGINE_PORT_NAME} and have a number")
    metadata = {**raw["metadata"], "labels": {**labels, LABEL_SERVICE: owner}}
    return {**raw, "metadata": metadata}


_CHECKS: dict[str, Callable[[Object], Object]] = {
    "InferenceService": _service,
    "InferenceProvider": _provider,
    "InferenceRuntime": _runtime,
    "Secret": _secret,
    "EndpointSlice": _slice,
}


def _is_key(secret: Object) -> bool:
    return (secret["metadata"].get("labels") or {}).get(LABEL_KEY) == "true"


def _id(raw: Object) -> Id:
    return raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]


def _spelled(found: Id) -> str:
    kind, namespace, name = found
    return f"{kind} {namespace}/{name}"


def _by_kind(objects: Mapping[Id, Object]) -> dict[str, list[Object]]:
    kinds: dict[str, list[Object]] = {kind: [] for kind in _CHECKS}
    for raw in objects.values():
        kinds[raw["kind"]].append(raw)
    return kinds
