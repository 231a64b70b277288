"""The container's memory limit, as its control group states it (version 2, then version 1).

https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from pathlib import Path

FILES = ("memory.max", "memory/memory.limit_in_bytes")
NO_LIMIT = 1 << 60  # version 1 says "none" with a number near 2**63


def memory_limit(root: Path) -> int | None:
    """Bytes that this container may use, None when there is no limit."""
    for name in FILES:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() and int(text) < NO_LIMIT else None
    return None
