"""Errors as the API shapes them that the client speaks.

ApiError            what the client is told: status, code, message, seconds to wait
AttemptFailed       one target failed before its first byte; another may be tried
├── ReplicaFailed   an engine pod; ``sent`` says whether it may have seen the request
├── EngineRefused   an engine that lives answered 500, in its own words
└── ProviderFailed  a cloud account
StreamBroken        an answer that had begun ended early; never retried

https://platform.openai.com/docs/guides/error-codes/api-errors
https://platform.claude.com/docs/en/api/errors
"""

import math
from typing import Any

import orjson

from overspill.providers.base import Api

Headers = list[tuple[bytes, bytes]]

RETRY_AFTER_MIN, RETRY_AFTER_MAX = 1, 60  # seconds that we ever ask a client to wait

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An answer that says what is wrong and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after = None if retry_after is None else clamp_retry(retry_after)
        self.headers = headers

    def body(self, api: Api = Api.OPENAI, request_id: str = "") -> bytes:
        """Return the error object as JSON, in an API's form."""
        if api is Api.ANTHROPIC:
            return self._for_anthropic(request_id)
        error: dict[str, Any] = {
            "message": self.message,
            "type": _TYPES.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})

    def _for_anthropic(self, request_id: str) -> bytes:
        """Its errors have no field for the parameter: the message names it."""
        other = "api_error" if self.status >= 500 else "invalid_request_error"
        named = self.param is None or self.param in self.message
        error = {
            "type": _ANTHROPIC_TYPES.get(self.status, other),
            "message": self.message if named else f"{self.param}: {self.message}",
        }
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def clamp_retry(seconds: float) -> int:
    """Return whole seconds, not fewer, between 1 and 60 (infinite and NaN become 60)."""
    if not seconds < RETRY_AFTER_MAX:
        return RETRY_AFTER_MAX
    return max(RETRY_AFTER_MIN, math.ceil(seconds))


class AttemptFailed(Exception):
    """One target failed before the first byte; ``reason`` is one CamelCase word for a metric."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReplicaFailed(AttemptFailed):
    """An engine pod failed.

    :param sent: the engine may have read the request, so it may have been its fault.
    :param lost: it has ended the connection then: it may have died of it.
    """

    def __init__(self, message: str, *, sent: bool, lost: bool = False) -> None:
        super().__init__(message, "ReplicaFailed" if sent else "ReplicaUnreachable")
        self.sent, self.lost = sent, lost


class EngineRefused(AttemptFailed):
    """An engine that lives answered 500: by the request's fault, or by its own.

    llama.cpp answers so to an image for a model without eyes. Such a request must cost nobody
    else a replica, and must not go to a cloud that would take money for it.

    :param error: what the engine said, for the client.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"the engine answered {error.status}", "EngineRefused")
        self.error = error


class ProviderFailed(AttemptFailed):
    """A provider failed; the message holds no part of its answer."""


class StreamBroken(Exception):
    """An answer ended after its first byte."""


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Return a 400 that names the field."""
    return ApiError(400, code, message, param=param)
