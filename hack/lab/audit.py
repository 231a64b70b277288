"""What a user wrote, by the audit log of the API server of `make cluster-up`."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

LOG = Path("/var/lib/overspill-cluster/audit/audit.log")
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def writes(user: str, since: float, log: Path = LOG) -> Iterator[dict[str, Any]]:
    """Give the audit events of a user's writes, in no order.

    :param user: what its name begins with.
    :param since: seconds since the epoch; of the requests that were received then or later.
    :param log: the file that is written; what it was before, when it was full, is beside it.
    """
    for path in log.parent.glob(f"{log.stem}*{log.suffix}"):
        if path.stat().st_mtime < since:
            continue
        with path.open("rb") as lines:
            for line in lines:
                # The last one may be half written; most are somebody else's, and not worth parsing.
                if line.endswith(b"\n") and user.encode() in line:
                    event = json.loads(line)
                    if _by(event, user) and _received(event) >= since:
                        yield event


def _by(event: dict[str, Any], user: str) -> bool:
    return event["verb"] in WRITES and event["user"]["username"].startswith(user)


def _received(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
