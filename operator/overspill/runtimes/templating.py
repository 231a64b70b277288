"""From a bundled template to checked objects; no value of a spec can change their structure.

Three locks, each enough by itself against injection: templates are ours alone and run in
Jinja2's sandbox with strict undefined; every value passes through ``tojson``; and the parsed
result must be exactly the objects we meant (kind, name, namespace, owner), or nothing is applied.

Limit: YAML refuses mapping keys longer than 1,024 characters; the API server refuses them too.
"""

import json
import math
import re
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NoReturn

import yaml
from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

Object = dict[str, Any]

# The C parser where PyYAML was built with it: ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FAST = 1  # of zlib's levels
# JSON leaves bare what YAML changes or refuses (DEL, C1 controls, line separators …): escape
# everything that is not printable ASCII.
_UNSAFE = re.compile(r"[^\x20-\x7e]")


class RenderError(ValueError):
    """A service cannot be turned into objects; the text says why. Retrying does not help."""


def tojson(value: Any) -> str:
    """Return a value as JSON that is YAML too and means the same in both.

    JSON is nearly YAML (https://yaml.org/spec/1.2.2/#102-json-schema). The gaps: characters
    outside ASCII become YAML's own escapes (a JSON surrogate pair would be read as two
    characters), and floats always carry a point (``1e+16`` is a string to a YAML 1.1 parser).

    :raises RenderError: for values that JSON does not have.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(str(k))}: {tojson(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(tojson(item) for item in value) + "]"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, float):
        return _float(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    _refuse(value)


def _quote(text: str) -> str:
    escaped = json.dumps(text, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\U{ord(match.group()):08x}", escaped)


def _float(number: float) -> str:
    if not math.isfinite(number):
        raise RenderError(f"{number} cannot stand in an object")
    mantissa, e, exponent = repr(number).partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent


def render(template: str, values: Object) -> list[Object]:
    """Return the objects that a bundled template makes of the values; the caller may change them.

    :param template: file name in ``templates/``.
    :raises RenderError: when the result is not a list of objects.
    """
    try:
        text = json.dumps(values, default=_refuse)
        rendered = _rendered(template, zlib.compress(text.encode(), FAST))
        parsed: list[Object] = json.loads(zlib.decompress(rendered))
    except RecursionError as error:
        raise RenderError(
            "a field without a schema, such as spec.pod.affinity, nests too deep; "
            "remove the inner levels"
        ) from error
    return parsed


# A service is rendered at every look at it, and changes hardly ever. To render takes 3 ms, to find
# it here 0.2 ms; compressed, 8,192 of them are 20 MB.
@lru_cache(maxsize=8192)
def _rendered(template: str, values: bytes) -> bytes:
    text = _environment.get_template(template).render(json.loads(zlib.decompress(values)))
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise RenderError(f"{template}: the result is not YAML: {error}") from error
    objects = [document for document in documents if document is not None]
    return zlib.compress(json.dumps(objects).encode(), FAST)


def _refuse(value: Any) -> NoReturn:
    raise RenderError(f"a {type(value).__name__} cannot stand in an object")


def check(objects: Iterable[Object], expected: Iterable[tuple[str, str]], owner: Object) -> None:
    """Fail unless the objects are exactly the expected ones, all of that owner.

    :param expected: (kind, name) of each object.
    :param owner: ``{"namespace": …, "reference": …}``.
    :raises RenderError: with the first difference.
    """
    found = []
    for obj in objects:
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
            raise RenderError(f"not an object: {str(obj)[:100]}")
        metadata = obj["metadata"]
        found.append((obj.get("kind"), metadata.get("name")))
        if metadata.get("namespace") != owner["namespace"]:
            raise RenderError(f"{found[-1]} is not in namespace {owner['namespace']}")
        if metadata.get("ownerReferences") != [owner["reference"]]:
            raise RenderError(f"{found[-1]} does not belong to the service alone")
    if sorted(map(str, found)) != sorted(map(str, expected)):
        raise RenderError(f"rendered {found}, expected {list(expected)}")


_environment = ImmutableSandboxedEnvironment(
    loader=PackageLoader("overspill.runtimes"),
    undefined=StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["tojson"] = tojson
