"""How a command ends when it cannot do what it was asked: one line that names the remedy."""

from overspill.cluster.errors import (
    ClusterError,
    Conflict,
    Forbidden,
    NotConfigured,
    NotFound,
    Unavailable,
)

NOT_READY = 1
USAGE = 2
CLUSTER = 3

_REMEDIES: tuple[tuple[type[ClusterError], str], ...] = (
    (NotConfigured, "give --kubeconfig or --context, or set KUBECONFIG"),
    (Forbidden, "use a context with that right, or ask whoever runs the cluster for it"),
    (NotFound, "is Overspill installed there? See `overspill check` and --system-namespace"),
    (Conflict, "somebody else changed it meanwhile; try again"),
    (Unavailable, "is the cluster up, and the right --context chosen?"),
)


class CommandError(Exception):
    """A command cannot go on; the text is for the user and ends with the remedy."""

    def __init__(self, message: str, status: int = NOT_READY) -> None:
        """Keep the message.

        :param status: of the process, see the package's docstring.
        """
        super().__init__(message)
        self.status = status


def explain(error: ClusterError) -> CommandError:
    """Return what to tell the user about an error of the cluster layer."""
    text = str(error).strip().rstrip(".")
    remedy = next((r for kind, r in _REMEDIES if isinstance(error, kind)), "")
    known = not remedy or isinstance(error, NotConfigured)
    return CommandError(text if known else f"{text}; {remedy}", CLUSTER)
