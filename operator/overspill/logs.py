"""Logs as JSON lines on stdout: ours straight to its buffer, libraries' by way of logging."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson
import structlog

_info: BinaryIO | None = None  # where lines of this level go, if any do


def configure(level: str) -> None:
    """Write what is of ``level`` or above; of libraries only warnings and errors.

    :param level: debug, info, warning or error.
    """
    global _info
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    _info = sys.stdout.buffer if number <= logging.INFO else None
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def info(event: str, fields: dict[str, Any]) -> None:
    """Write the line that structlog would write for ``log.info(event, **fields)``.

    For what is said of every request: without bound loggers and processors it costs 2.8 µs instead
    of 7.6. One write of a buffered file is one piece, whoever else writes to it.
    """
    if _info is not None:
        line = fields | {"event": event, "level": "info", "timestamp": datetime.now(UTC)}
        _info.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))
        _info.flush()
