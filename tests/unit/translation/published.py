"""What Anthropic's API takes, as its official SDK declares it: generated from its description.

A body is checked against the types of the SDK's parameters, and must hold nothing beyond them.
"""

from collections.abc import Iterator
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsBase
from pydantic import TypeAdapter

# The SDK has dropped them; models up to Opus 4.6 take them.
SAMPLING = {"temperature": float, "top_p": float, "top_k": int}
_BODY = TypeAdapter(MessageCreateParamsBase)


def check(body: dict[str, Any]) -> None:
    """Hold a Messages request against the published types.

    :raises ValueError: where it differs.
    """
    declared = {k: v for k, v in body.items() if k not in SAMPLING and k != "stream"}
    kept = _whole(_BODY.validate_python(declared))
    if kept != declared:
        raise ValueError(f"more than the API knows: {declared} is {kept}")


def _whole(value: Any) -> Any:
    """Read what pydantic checks only when it is read."""
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, list | Iterator):
        return [_whole(v) for v in value]
    return value
