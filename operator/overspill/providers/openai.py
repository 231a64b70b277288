"""OpenAI and every API that speaks like it.

The body is made of an allow-list of fields, so that no field of a client picks a host or an
engine's knob.

https://platform.openai.com/docs/api-reference
https://learn.microsoft.com/en-us/azure/foundry/openai/reference
"""

from typing import Any
from urllib.parse import quote

from overspill.api.provider import ProviderType
from overspill.providers.base import Account, Fields, Request, Unsupported
from overspill.providers.neutral import says_nothing

CHAT = "/chat/completions"
# Fields that go out.
_SHARED = (
    {"stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "stop", "n"}
    | {"presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "user"}
)  # fmt: skip
_FIELDS = {
    CHAT: _SHARED
    | {"messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls"}
    | {"functions", "function_call"}  # what tools replaced; without it the answer is another one
    | {"response_format", "top_logprobs", "reasoning_effort", "verbosity"},
    "/completions": _SHARED | {"prompt", "suffix", "echo", "best_of"},
    "/embeddings": {"input", "encoding_format", "dimensions", "user"},
}

_OWN_TOOLS = ("function", "custom")
_THOUGHTS = frozenset({"reasoning_content", "reasoning"})  # of engines; the latter newer vLLM's


def headers(account: Account) -> dict[str, str]:
    """Return the header that proves who asks."""
    if account.azure_api_version:
        return {"api-key": account.secret}
    return {"Authorization": f"Bearer {account.secret}"}


def path_of(account: Account, request: Request, model: str) -> str:
    """Return where below the base URL to ask; Azure's dated API has a path for each deployment."""
    if not account.azure_api_version:
        return request.path
    deployment = quote(model, safe="")
    return f"/deployments/{deployment}{request.path}?api-version={account.azure_api_version}"


def unsupported(request: Request) -> Unsupported | None:
    """Return what the API has no field for, None when it can say all of it."""
    allowed = _FIELDS[request.path] | {"model"}
    for name, value in request.fields.items():
        if name not in allowed and not says_nothing(name, value):
            return Unsupported(name, "this provider's API has no such field")
    return _run_elsewhere(request.fields.get("tools"))


def _run_elsewhere(tools: Any) -> Unsupported | None:
    """Return a tool that the provider would run by itself: it bills that, and not by the token."""
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("type", "function") not in _OWN_TOOLS:
            why = "only tools of the client's own can be used"
            return Unsupported(f"tools[{index}].type", why)
    return None


def conversation_of(request: Request) -> Fields:
    """Return the fields of a chat request, for APIs that know nothing else.

    :raises Unsupported: when it is none.
    """
    if request.path != CHAT:
        field = "input" if request.path == "/embeddings" else "prompt"
        raise Unsupported(field, "this provider's API knows conversations only")
    return request.fields


def body_for(kind: ProviderType, request: Request, model: str) -> Fields:
    """Return the provider's body: allowed fields, its own model name, usage asked for."""
    allowed = _FIELDS[request.path]
    body = {k: v for k, v in request.fields.items() if k in allowed and v is not None}
    body["model"] = model
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if kind is ProviderType.OPENAI and request.path == CHAT:
        body["messages"] = [_without_thoughts(message) for message in body["messages"]]
        if "max_tokens" in body:  # OpenAI's newer models refuse the old name
            body.setdefault("max_completion_tokens", body.pop("max_tokens"))
    return body


def _without_thoughts(message: Fields) -> Fields:
    """Return a message as OpenAI knows it: the reasoning of earlier turns has no field there."""
    if _THOUGHTS.isdisjoint(message):
        return message
    return {name: value for name, value in message.items() if name not in _THOUGHTS}
