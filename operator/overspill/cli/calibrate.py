"""`overspill calibrate`: the latency model of a running engine, for `overspill simulate`."""

import asyncio
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

from overspill.cli import show
from overspill.cli.calibrate_load import Endpoint, Plan, measure
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output
from overspill.simulator.calibration import CalibrationError, Measured, fit
from overspill.simulator.parameters import Parameters

MAX_KEY = 4096  # bytes of a key's file


def run(
    url: str,
    model: str,
    timeout: float,
    key_file: Path | None,
    plan: Plan,
    write: Path | None,
    output: Output,
) -> None:
    """Load the endpoint, fit, print, and write the file.

    :param url: of an OpenAI-compatible API, with or without /v1.
    :param timeout: seconds for one answer.
    :param write: the file, None for none.
    :raises CommandError: wrong use, a request that fails, or too little measured.
    """
    endpoint = Endpoint(_base(url), model, timeout, _key(key_file) if key_file else "")
    if write is not None and not write.parent.is_dir():
        raise CommandError(f"{write.parent} is no folder: give another --write", USAGE)
    show.note(
        f"at most {plan.requests} requests in {plan.seconds:g} s, {plan.concurrency} at a time"
    )
    measured = asyncio.run(measure(endpoint, plan, _tell))
    try:
        parameters = Parameters.of(fit(measured), _source(endpoint, measured, plan))
    except CalibrationError as error:
        raise CommandError(f"{error}: give more --seconds or --requests") from None
    if write is not None:
        _write(parameters, write)
    if output is Output.JSON:
        show.as_json(parameters.model_dump())
    else:
        _print(parameters)


def _base(url: str) -> str:
    """Return the address of the API's version 1.

    :raises CommandError: it is no such address.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is none
    except ValueError as error:
        raise CommandError(f"{url} is no URL: {error}", USAGE) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(f"{url} is no URL: give one such as http://127.0.0.1:8000", USAGE)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise CommandError("the URL must be scheme, host and path only: a key is --key-file", USAGE)
    path = parts.path.rstrip("/")
    path = path if path.endswith("/v1") else f"{path}/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _key(path: Path) -> str:
    """Return the key, which is never shown.

    :raises CommandError: the file cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            key = file.read(MAX_KEY + 1).strip()
    except OSError as error:
        raise CommandError(f"--key-file {path}: {error.strerror}", USAGE) from None
    if not key or len(key) > MAX_KEY or not all(0x21 <= byte <= 0x7E for byte in key):
        raise CommandError(f"--key-file {path}: must hold one key and nothing else", USAGE)
    return key.decode()


def _tell(level: int, done: list[Measured]) -> None:
    """Say what a part of the load found."""
    if not done:
        show.note(f"{level} at a time: no time was left; give more --seconds")
        return
    ttft = statistics.median(one.ttft for one in done)
    itl = statistics.median(one.itl or 0.0 for one in done)
    show.note(
        f"{level} at a time: {len(done)} requests, "
        f"first token after {ttft:.3g} s, {itl * 1000:.3g} ms between tokens (medians)"
    )


def _source(endpoint: Endpoint, measured: list[Measured], plan: Plan) -> str:
    prompts = [one.request.input_tokens for one in measured]
    answers = [one.request.output_tokens for one in measured]
    return (
        f"Measured {time.strftime('%Y-%m-%d')}: {endpoint.model}, {len(measured)} requests, up to "
        f"{plan.concurrency} at a time, prompts of {min(prompts)} to {max(prompts)} tokens, "
        f"answers of {min(answers)} to {max(answers)}."
    )


def _write(parameters: Parameters, path: Path) -> None:
    try:
        path.write_text(parameters.text(), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; give another --write", USAGE) from None
    show.note(f"{path} written; use it with: overspill simulate --level discrete --engine {path}")


_MEANING = {
    "alpha": "of every iteration",
    "beta": "per token computed",
    "gamma": "per token read",
}


def _print(parameters: Parameters) -> None:
    errors = parameters.errors
    rows = [
        (
            name,
            f"{getattr(parameters, name) * 1000:.4g}",
            f"± {getattr(errors, name) * 1000:.2g}",
            meaning,
        )
        for name, meaning in _MEANING.items()
    ]
    show.table(("parameter", "ms", "error", ""), rows)
    if parameters.residuals is not None:
        show.line(
            f"The model misses the time to the first token by {parameters.residuals.ttft:.1%}, "
            f"the time between tokens by {parameters.residuals.itl:.1%} (root mean square)."
        )
