"""Recorded load: what others measured, read from files as data.

Five forms are known, told apart by their first line, not by their name:

* ServeGen's summed windows: ``window_start_s,rate_rps,count_variance_per_s`` with a header.
* ServeGen's client files (https://github.com/alibaba/ServeGen): ``start,rate,cv,pattern,…`` without
  a header, one file for each client; a folder of them is their sum.
* Azure's token traces (https://github.com/Azure/AzurePublicDataset):
  ``TIMESTAMP,ContextTokens,GeneratedTokens``.
* Mooncake's JSON lines (https://github.com/kvcache-ai/Mooncake): ``timestamp`` in ms,
  ``input_length``, ``output_length``, and ``hash_ids``, one for each 512 tokens of the prompt.
* Plain CSV: ``time,rate`` or ``time,input_tokens,output_tokens``, times in seconds.

Nothing in a file is evaluated. Bad input raises ``TraceError`` with file and line. A trace is held
in memory: some hundred bytes per window or request.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise, takewhile
from pathlib import Path

Row = tuple[int, list[str]]  # line number and cells

MAX_BYTES = 512 * 2**20  # of one file
BLOCK = 512  # tokens for which a Mooncake trace has one hash


class TraceError(ValueError):
    """A trace cannot be read; says where, and what was expected."""


@dataclass(frozen=True)
class Window:
    """Load over a while, as two moments."""

    start: float  # seconds since the trace's own beginning
    length: float  # seconds
    rate: float  # requests/s
    variance: float  # of the count of arrivals, per second


@dataclass(frozen=True, slots=True)
class Request:
    """One recorded request."""

    time: float  # seconds since the trace's own beginning
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input, where the trace tells which prompts begin alike


@dataclass(frozen=True)
class Trace:
    """Windows or requests, in the order of time; never both."""

    windows: tuple[Window, ...] = ()
    requests: tuple[Request, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from 0 to the end."""
        if self.windows:
            return self.windows[-1].start + self.windows[-1].length
        return self.requests[-1].time

    def slice(self, begin: float, end: float) -> "Trace":
        """Return what lies in [begin, end), in seconds; its time begins at 0 again.

        :raises TraceError: nothing does.
        """
        windows = tuple(
            Window(max(w.start, begin) - begin, right - max(w.start, begin), w.rate, w.variance)
            for w in self.windows
            if (right := min(w.start + w.length, end)) > max(w.start, begin)
        )
        requests = tuple(
            replace(r, time=r.time - begin) for r in self.requests if begin <= r.time < end
        )
        if not windows and not requests:
            raise TraceError(f"nothing between {begin:g} and {end:g} s: give a slice inside it")
        return Trace(windows, requests)


def read(path: Path) -> Trace:
    """Read a trace of any known form.

    :param path: a file, or a folder of ServeGen's client files.
    :raises TraceError: it cannot be read, or is of no known form.
    """
    if path.is_dir():
        return _sum_clients(path)
    lines = _lines(path)
    _, first = next(lines, (0, ""))
    if first.lstrip().startswith("{"):
        return _mooncake(path)
    reader = FORMS.get(tuple(first.strip().lower().split(",")))
    if reader is not None:
        rows = _rows(path)
        next(rows)  # the header
        return reader(path, rows)
    if _looks_like_client(first):
        return _in_order(path, Trace(windows=tuple(_client(path))))
    raise TraceError(
        f"{path}:1: no known form: expected a header such as time,rate or "
        "time,input_tokens,output_tokens, or a line of JSON"
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines that are not empty."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TraceError(f"{path}: larger than {MAX_BYTES >> 20} MiB: give a part of it")
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None


def _rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        try:
            cells = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise TraceError(f"{path}:{number}: {error}") from None
        yield number, [cell.strip() for cell in cells]


def _cells(path: Path, row: Row, count: int) -> list[str]:
    number, cells = row
    if len(cells) < count:
        raise TraceError(f"{path}:{number}: {len(cells)} columns instead of {count}")
    return cells


def _number(path: Path, line: int, name: str, text: object, *, signed: bool = False) -> float:
    """Read a finite number."""
    try:
        value = float(str(text))
    except ValueError:
        raise TraceError(f"{path}:{line}: {name} {str(text)[:40]!r} is not a number") from None
    if not math.isfinite(value) or (value < 0 and not signed):
        raise TraceError(
            f"{path}:{line}: {name} {str(text)[:40]!r} must be finite and not negative"
        )
    return value


def _numbers(path: Path, row: Row, *names: str) -> list[float]:
    cells = _cells(path, row, len(names))
    return [_number(path, row[0], n, c) for n, c in zip(names, cells, strict=False)]


def _in_order(path: Path, trace: Trace) -> Trace:
    times = [w.start for w in trace.windows] + [r.time for r in trace.requests]
    if not times:
        raise TraceError(f"{path}: a header, but no rows")
    for index, (before, after) in enumerate(pairwise(times)):
        if after < before:
            raise TraceError(
                f"{path}: row {index + 2}: time goes back from {before:g} to {after:g} s"
            )
    return trace


def _windows(rows: list[tuple[float, float, float]]) -> tuple[Window, ...]:
    """Give each window its length: until the next begins; the last is as long as the one before."""
    starts = [start for start, _, _ in rows]
    lengths = [after - before for before, after in pairwise(starts)]
    lengths.append(lengths[-1] if lengths else 600.0)
    begin = starts[0] if starts else 0.0
    return tuple(
        Window(start - begin, length, rate, variance)
        for (start, rate, variance), length in zip(rows, lengths, strict=True)
        if length > 0 or start == starts[-1]
    )


def _servegen(path: Path, rows: Iterator[Row]) -> Trace:
    names = ("window_start_s", "rate_rps", "count_variance_per_s")
    read_rows = [_numbers(path, row, *names) for row in rows]
    return _from_rates(path, [(start, rate, variance) for start, rate, variance in read_rows])


def _rates(path: Path, rows: Iterator[Row]) -> Trace:
    read_rows = [_numbers(path, row, "time", "rate") for row in rows]
    return _from_rates(path, [(start, rate, 0.0) for start, rate in read_rows])


def _from_rates(path: Path, rows: list[tuple[float, float, float]]) -> Trace:
    for index, ((before, *_), (after, *_)) in enumerate(pairwise(rows)):
        if after <= before:
            raise TraceError(f"{path}: row {index + 3}: time {after:g} does not follow {before:g}")
    return _in_order(path, Trace(windows=_windows(rows) if rows else ()))


def _requests(path: Path, rows: Iterator[Row]) -> Trace:
    names = ("time", "input_tokens", "output_tokens")
    read_rows = [_numbers(path, row, *names) for row in rows]
    return _from_requests(path, [(time, int(i), int(o), 0) for time, i, o in read_rows])


def _azure(path: Path, rows: Iterator[Row]) -> Trace:
    found = []
    for row in rows:
        number, cells = row[0], _cells(path, row, 3)
        tokens = _numbers(path, (number, cells[1:]), "ContextTokens", "GeneratedTokens")
        found.append((_timestamp(path, number, cells[0]), int(tokens[0]), int(tokens[1]), 0))
    return _from_requests(path, found)


def _timestamp(path: Path, line: int, text: str) -> float:
    """Read ``2023-11-16 18:15:46.6805900``: seven digits, of which Python takes six."""
    whole, _, fraction = text.partition(".")
    try:
        moment = datetime.fromisoformat(whole.replace(" ", "T") + "+00:00")
    except ValueError:
        raise TraceError(f"{path}:{line}: TIMESTAMP {text[:40]!r} is not a date and time") from None
    return moment.timestamp() + _number(path, line, "TIMESTAMP", f"0.{fraction or 0}")


def _mooncake(path: Path) -> Trace:
    """Read requests; a prompt's first blocks that came before count as cached, by whomever."""
    found, seen = [], set[int]()
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise TraceError(f"{path}:{number}: not a JSON object") from None
        if not isinstance(record, dict):
            raise TraceError(f"{path}:{number}: not a JSON object")
        time, prompt, answer = (
            _number(path, number, name, record.get(name))
            for name in ("timestamp", "input_length", "output_length")
        )
        blocks = _blocks(path, number, record.get("hash_ids", []))
        known = sum(1 for _ in takewhile(seen.__contains__, blocks))
        seen.update(blocks)
        cached = max(0, min(known * BLOCK, int(prompt) - 1))  # the last token is always computed
        found.append((time / 1000, int(prompt), int(answer), cached))
    return _from_requests(path, found)


def _blocks(path: Path, line: int, blocks: object) -> list[int]:
    if isinstance(blocks, list) and all(type(block) is int for block in blocks):
        return blocks
    raise TraceError(f"{path}:{line}: hash_ids is not a list of whole numbers")


def _from_requests(path: Path, found: Sequence[tuple[float, int, int, int]]) -> Trace:
    begin = found[0][0] if found else 0.0
    requests = tuple(Request(time - begin, *tokens) for time, *tokens in found)
    return _in_order(path, Trace(requests=requests))


def _looks_like_client(line: str) -> bool:
    cells = line.strip().split(",")
    return len(cells) >= 3 and cells[0].replace(".", "", 1).isdigit()


def _client(path: Path) -> Iterator[Window]:
    """Read one client: the variance of its count is rate × CV², that of a renewal process."""
    rows = []
    for row in _rows(path):
        number, cells = row[0], _cells(path, row, 3)
        # A client that was away in a window has empty cells.
        start, rate, cv = (
            _number(path, number, name, cell or "0")
            for name, cell in zip(("start", "rate", "cv"), cells, strict=False)
        )
        rows.append((start, rate, rate * cv * cv))
    yield from _from_rates(path, rows).windows


def _sum_clients(folder: Path) -> Trace:
    """Add up a folder's clients, window by window."""
    files = sorted(folder.glob("*trace*.csv"))
    if not files:
        raise TraceError(f"{folder}: no *trace*.csv in it")
    sums: dict[float, Window] = {}
    for file in files:
        for w in _client(file):
            before = sums.get(w.start, Window(w.start, w.length, 0.0, 0.0))
            rate, variance = before.rate + w.rate, before.variance + w.variance
            sums[w.start] = Window(w.start, before.length, rate, variance)
    return Trace(windows=tuple(sums[start] for start in sorted(sums)))


FORMS: dict[tuple[str, ...], Callable[[Path, Iterator[Row]], Trace]] = {
    ("window_start_s", "rate_rps", "count_variance_per_s"): _servegen,
    ("time", "rate"): _rates,
    ("time", "input_tokens", "output_tokens"): _requests,
    ("timestamp", "contexttokens", "generatedtokens"): _azure,
}
