"""`overspill-engine serve`: the entry point of the engine image.

All options come from the environment (see `options`), so that a pod's command is constant.
Faults end with a line `Reason: text` on standard error and in the termination log.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from overspill import __version__
from overspill.engine import llamacpp, supervisor
from overspill.engine.errors import EngineError
from overspill.engine.limits import memory_limit
from overspill.engine.model import find_model
from overspill.engine.options import from_environment
from overspill.engine.termination import leave_message

log = structlog.get_logger(__name__)


def run(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, and exit with the status that names the fault."""
    _parser().parse_args(argv)
    supervisor.block_signals()
    _configure_logging()
    try:
        _serve()
    except EngineError as error:
        leave_message(str(error))
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)


def _serve() -> None:
    options = from_environment(os.environ)
    model = find_model(options.model_path)
    settings = llamacpp.settings(options, model, memory_limit(Path("/sys/fs/cgroup")))
    args = dict(options.engine_args)
    log.info("starting", version=__version__, settings=settings, args=sorted(args))  # names only
    given = json.dumps({"settings": settings, "args": args})
    server = [sys.executable, "-m", "overspill.engine.server", given]
    supervisor.supervise(server, options.port, options.drain_seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overspill-engine", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("serve", help="serve the model of OVERSPILL_MODEL_PATH")
    return parser


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


if __name__ == "__main__":
    run()
