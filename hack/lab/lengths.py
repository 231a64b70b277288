"""Lengths of tests of hostile input: short, or in full (`make fuzz-hostile`)."""

import os

LONG = bool(os.environ.get("OVERSPILL_FUZZ"))


def length(short: int, long: int) -> int:
    """A number of things: the short form, or the whole one."""
    return long if LONG else short
