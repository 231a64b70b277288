"""Leave the reason of an end where Kubernetes picks it up.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

import contextlib
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
MAX_BYTES = 4096  # the kubelet cuts longer messages


def leave_message(message: str, path: Path = TERMINATION_LOG) -> None:
    """Write `message` to the container's termination log where there is one."""
    text = message.encode()[:MAX_BYTES].decode(errors="ignore")
    if path.exists():  # not outside Kubernetes
        with contextlib.suppress(OSError):
            path.write_text(text)
