"""No piece of a secret may be in what is written, told or measured, whatever goes wrong (S18)."""

import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from overspill import logs

PIECE = 8  # characters; who masks all but some still tells too much (CVE-2024-9606)


def found_in(text: bytes, secrets: list[str]) -> list[bytes]:
    """Return the pieces of secrets that a text has, also in base64 wherever that began."""
    return sorted(piece for secret in secrets for piece in _pieces(secret) if piece in text)


def _pieces(secret: str) -> set[bytes]:
    spelled = [secret.encode()]
    for before in range(3):  # what stands before decides how three bytes become four digits
        coded = base64.b64encode(bytes(before) + secret.encode()).rstrip(b"=")
        spelled.append(coded[4 if before else 0 : -1])
    return {text[i : i + PIECE] for text in spelled for i in range(len(text) - PIECE + 1)}


class _Lines(logging.Handler):
    """What libraries log."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__()
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        self.out.write(self.format(record).encode(errors="replace"))


@contextmanager
def written() -> Iterator[io.BytesIO]:
    """Give what is logged meanwhile, by us and by libraries, with the text of every exception."""
    out = io.BytesIO()

    def note(logger: Any, level: str, event: dict[str, Any]) -> dict[str, Any]:
        out.write(json.dumps(event, default=repr).encode())
        if event.get("exc_info"):
            out.write(traceback.format_exc().encode())
        return event

    processors, handler, lines = structlog.get_config()["processors"], _Lines(out), logs._info
    processors.insert(0, note)
    logging.getLogger().addHandler(handler)
    logs._info = lines or out
    try:
        yield out
    finally:
        logs._info = lines
        logging.getLogger().removeHandler(handler)
        if note in processors:
            processors.remove(note)
