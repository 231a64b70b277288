"""What an engine compiles for a client, bounded: the JSON schemas of an answer and of tools.

Engines make a grammar of each, and keep it: caches of compiled schemas without a bound have filled
memories and disks (CVE-2025-29770), and depth has ended parsers. What OpenAI takes is less
than this (5,000 properties in 10 levels, each of which is two or three levels of JSON):
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from typing import Any

from overspill.gateway.errors import bad_request

FORMATS = ("text", "json_object", "json_schema")
FIELDS = ("response_format", "tools", "functions")  # that may hold schemas

# In one field:
MAX_LEVELS = 64
MAX_VALUES = 50_000
MAX_TEXT = 1024 * 1024  # characters of names and strings


def check_schemas(fields: dict[str, Any]) -> None:
    """Hold those fields of a request against the bounds.

    :raises ApiError: 400 that names the field.
    """
    if (wanted := fields.get("response_format")) is not None:
        _check_format(wanted)
    for name in FIELDS:
        if fields.get(name):
            _check_size(name, fields[name])


def _check_format(wanted: Any) -> None:
    """Regular expressions, grammars and structural tags are an engine's own knobs."""
    name = "response_format"
    if not isinstance(wanted, dict) or wanted.keys() - {"type", "json_schema"}:
        raise bad_request(f"{name} must be an object with type and json_schema only", name)
    if wanted.get("type") not in FORMATS:
        raise bad_request(f"{name}.type must be one of {', '.join(FORMATS)}", name)


def _check_size(name: str, value: Any) -> None:
    values, text, levels = 0, 0, 0
    level = [value]
    while level or text > MAX_TEXT:
        values, levels = values + len(level), levels + 1
        if levels > MAX_LEVELS or values > MAX_VALUES or text > MAX_TEXT:
            raise bad_request(
                f"{name} may hold {MAX_VALUES} values in {MAX_LEVELS} levels, and {MAX_TEXT} "
                "characters, at most",
                name,
                "schema_too_large",
            )
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                text += sum(map(len, part))
                inner.extend(part.values())
            elif isinstance(part, list):
                inner.extend(part)
            elif isinstance(part, str):
                text += len(part)
        level = inner
