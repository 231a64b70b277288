"""What a user wrote, as stories and tests read it from the audit log."""

import json
import os
from pathlib import Path
from typing import Any

from lab import audit

SINCE = 1_700_000_000.0  # 2023-11-14T22:13:20Z
USER = "system:serviceaccount:ours:"


def event(verb: str = "patch", user: str = USER + "operator", second: int = 30) -> dict[str, Any]:
    at = f"2023-11-14T22:13:{second}.000000Z"
    return {"verb": verb, "user": {"username": user}, "requestReceivedTimestamp": at}


def test_writes_of_one_user_since_a_moment(tmp_path: Path) -> None:
    ours = [event(), event("create", second=20)]
    others = [event("get"), event(user="somebody"), event(second=19)]
    log = tmp_path / "audit.log"
    log.write_text("".join(json.dumps(e) + "\n" for e in [*ours, *others]))
    assert list(audit.writes(USER, SINCE, log)) == ours


def test_a_full_log_is_read_and_a_half_written_line_is_not(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(event()) + "\n" + json.dumps(event("create"))[:-9])
    full = tmp_path / "audit-2023-11-14T22-13-40.000.log"
    full.write_text(json.dumps(event("delete")) + "\n")
    older = tmp_path / "audit-2023-11-14T22-00-00.000.log"
    older.write_text("not looked at: " + USER + "\n")
    os.utime(older, (SINCE - 1, SINCE - 1))
    assert {e["verb"] for e in audit.writes(USER, SINCE, log)} == {"patch", "delete"}
