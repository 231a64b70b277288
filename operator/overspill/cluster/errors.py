"""What can go wrong when we talk to the API server.

Nothing above this package sees an exception of the Kubernetes client or of aiohttp::

    ClusterError            retry says whether the same call may succeed later by itself
    ├── NotConfigured       no kubeconfig and not in a pod
    ├── NotFound            404
    ├── Conflict            409: read the object again, then decide again
    ├── Forbidden           401, 403: a right is missing
    │   └── Terminating     the namespace is being deleted and takes nothing new
    ├── Invalid             400, 413, 415, 422: the object is wrong; the message names the field
    ├── Expired             410: the resourceVersion is too old; list again
    ├── Fenced              we do not hold the lease (any more), nothing was written
    └── Unavailable         429, 5xx, broken connections
        └── TimedOut        no answer in time; a watch that went silent
"""

import orjson


class ClusterError(Exception):
    """A call to the API server failed; the text is the server's own message."""

    retry = False

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        """Keep the server's message.

        :param retry_after: seconds that the server asks us to wait, 0 when it does not say.
        """
        super().__init__(message)
        self.retry_after = retry_after


class NotConfigured(ClusterError):
    """No way to reach a cluster is configured."""


class NotFound(ClusterError):
    """The object, its namespace or its kind does not exist."""


class Conflict(ClusterError):
    """The object changed since it was read, exists already, or a field has another owner."""

    retry = True


class Forbidden(ClusterError):
    """The API server refuses this identity that call."""


class Terminating(Forbidden):
    """The namespace is on its way out: whatever was to be written is no longer wanted."""


class Invalid(ClusterError):
    """The API server refuses the object."""


class Expired(ClusterError):
    """The watch cannot go on from this resourceVersion."""

    retry = True


class Fenced(ClusterError):
    """Not the leader: the write was not sent."""

    retry = True


class Unavailable(ClusterError):
    """The API server is away, overloaded or too slow."""

    retry = True


class TimedOut(Unavailable):
    """The API server did not answer in time, or a watch was silent for too long."""


_BY_STATUS: dict[int, type[ClusterError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}
# Server-side apply answers 500 to a field that is not in the schema; trying again cannot help.
_UNKNOWN_FIELD = "failed to create typed patch object"
_TERMINATING = "because it is being terminated"
MAX_RETRY_AFTER = 60.0  # seconds; what a server asks beyond that is cut


def from_status(status: int, body: bytes, retry_after: str = "") -> ClusterError:
    """Return the error for an HTTP status of 300 or above.

    :param body: the response; a Status object in JSON, from which the message is taken.
    :param retry_after: the header of that name, in seconds; anything else counts as absent.
    """
    message = _message(status, body)
    kind = _BY_STATUS.get(status, Unavailable)
    if message.startswith(_UNKNOWN_FIELD):
        kind = Invalid
    elif kind is Forbidden and message.endswith(_TERMINATING):
        kind = Terminating
    seconds = float(retry_after) if retry_after.isdecimal() else 0.0
    return kind(message, min(seconds, MAX_RETRY_AFTER))


def _message(status: int, body: bytes) -> str:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    text = parsed.get("message") if isinstance(parsed, dict) else None
    return str(text) if text else f"HTTP {status}: {body[:200].decode(errors='replace').strip()}"
