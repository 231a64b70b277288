"""`overspill-engine`: the entry point of the engine images.

* `serve` runs the image's engine. All options come from the environment (see `options`), so that
  a pod's command is constant.
* `fetch` loads a model before the engine starts, and ends (see `fetch`).
* `drain` runs beside an engine that cannot drain by itself (see `sidecar`).

Faults end with a line `Reason: text` on standard error and in the termination log.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from overspill import __version__
from overspill.engine import fit, supervisor
from overspill.engine.base import Engine
from overspill.engine.errors import EngineError, InvalidOptions, ModelDoesNotFit
from overspill.engine.fetch import options as fetch_options
from overspill.engine.fetch.load import load
from overspill.engine.limits import memory_limit
from overspill.engine.llamacpp import LlamaCpp
from overspill.engine.load import Gauges
from overspill.engine.options import Options, drain_delay, drain_seconds, from_environment
from overspill.engine.shape import UnknownShape
from overspill.engine.sidecar import Sidecar
from overspill.engine.termination import leave_message
from overspill.engine.vllm import VLLM

log = structlog.get_logger(__name__)

ENGINES: dict[str, Engine] = {"llamacpp": LlamaCpp(), "vllm": VLLM()}


def run(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, and exit with the status that names the fault."""
    command = _parser().parse_args(argv)
    _configure_logging()
    try:
        command.run(command)
    except EngineError as error:
        leave_message(str(error))
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)


def _fetch(_: argparse.Namespace) -> None:
    # Process 1 ignores signals without a handler. What is on the disk by then is used again.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    load(fetch_options.from_environment(os.environ))


def _serve(_: argparse.Namespace) -> None:
    supervisor.block_signals()
    engine = _engine(os.environ.get("OVERSPILL_ENGINE", "llamacpp"))
    options = from_environment(os.environ)
    model = engine.find(options.model_path)
    spare = _check_fit(engine, options, model)
    launch = engine.launch(options, model, spare)
    log.info("starting", version=__version__, engine=engine.title, options=_shown(options))
    supervisor.supervise(engine, launch, options.port, options.drain_seconds)


def _check_fit(engine: Engine, options: Options, model: Path) -> int | None:
    """Bytes of the container's limit that the model leaves, None without a limit.

    Raises ModelDoesNotFit.
    """
    limit = memory_limit(Path("/sys/fs/cgroup"))
    try:
        formula = engine.formula(options, model)
    except UnknownShape as error:
        log.warning("memory is not checked: the model's shape is unknown", cause=str(error))
        return limit
    need = formula(options)
    space = fit.room(options.accelerator, limit, engine.share(options), options.devices)
    log.info("memory", need=need.shown(), room=space and space.size)
    if space is None:
        log.warning("memory is not checked: nobody knows how much there is")
    elif text := fit.misfit(formula, options, space, engine.smaller_cache):
        raise ModelDoesNotFit(text)
    if limit is None or options.accelerator:
        return limit
    return limit - round(need.total)


def _drain(command: argparse.Namespace) -> None:
    gauges = Gauges(command.metrics, command.running, command.waiting)
    delay, seconds = drain_delay(os.environ), drain_seconds(os.environ)
    asyncio.run(Sidecar(gauges, delay, seconds).serve(command.port))


def _engine(name: str) -> Engine:
    """The engine that the image carries."""
    if name not in ENGINES:
        raise InvalidOptions(f"OVERSPILL_ENGINE is {name!r}; give one of {', '.join(ENGINES)}")
    return ENGINES[name]


def _shown(options: Options) -> dict[str, object]:
    """What a log may show: all, but of a user's own arguments only the names."""
    shown = {name: str(value) for name, value in vars(options).items() if value is not None}
    return shown | {"engine_args": [name for name, _ in options.engine_args]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overspill-engine", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="serve the model of OVERSPILL_MODEL_PATH")
    serve.set_defaults(run=_serve)
    fetch = commands.add_parser("fetch", help="load the model of OVERSPILL_MODEL_URI")
    fetch.set_defaults(run=_fetch)
    drain = commands.add_parser("drain", help="answer GET /drain when an engine has no request")
    drain.add_argument("--metrics", required=True, help="URL of the engine's metrics page")
    drain.add_argument("--running", required=True, help="gauge of the requests that it computes")
    drain.add_argument("--waiting", help="gauge of the requests that it has not begun")
    drain.add_argument("--port", required=True, type=int, help="where GET /drain is answered")
    drain.set_defaults(run=_drain)
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
