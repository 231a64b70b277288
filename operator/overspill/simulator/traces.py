"""Recorded load: what others measured, read from files as data.

Five forms are known, told apart by their first line, not by their name:

* ServeGen's summed windows: ``window_start_s,rate_rps,count_variance_per_s`` with a header.
* ServeGen's client files (https://github.com/alibaba/ServeGen): ``start,rate,cv,pattern,…`` without
  a header, one file for each client; a folder of them is their sum, by the starts of windows.
* Azure's token traces (https://github.com/Azure/AzurePublicDataset):
  ``TIMESTAMP,ContextTokens,GeneratedTokens``, of 2023 without and of 2024 with a time zone.
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
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from pathlib import Path

Row = tuple[int, list[str]]  # line number and cells
Rate = tuple[int, float, float, float]  # line number, start, requests/s, variance per second
Found = tuple[int, float, int, int, int]  # line number and what makes a request

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
        return _from_rates(path, _client(path))
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


def _number(path: Path, line: int, name: str, text: object) -> float:
    """Read a finite number that is not negative."""
    try:
        value = float(str(text))
    except ValueError:
        raise TraceError(f"{path}:{line}: {name} {str(text)[:40]!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise TraceError(
            f"{path}:{line}: {name} {str(text)[:40]!r} must be finite and not negative"
        )
    return value


def _numbers(path: Path, row: Row, *names: str) -> list[float]:
    cells = _cells(path, row, len(names))
    return [_number(path, row[0], n, c) for n, c in zip(names, cells, strict=False)]


def _tokens(path: Path, line: int, name: str, text: object) -> int:
    value = _number(path, line, name, text)
    if not value.is_integer():
        raise TraceError(f"{path}:{line}: {name} {str(text)[:40]!r} must be a whole number")
    return int(value)


def _check_order(path: Path, times: Sequence[tuple[int, float]], *, apart: bool = False) -> None:
    """Check that there are rows, and that none is earlier than the one before.

    :param times: line number and time of each row.
    :param apart: whether two at the same time are wrong as well.
    """
    if not times:
        raise TraceError(f"{path}: no rows in it")
    for (_, before), (line, after) in pairwise(times):
        if after < before or (apart and after == before):
            wrong = "is not after" if apart else "is before"
            raise TraceError(
                f"{path}:{line}: time {wrong} that of the row above: sort the rows by time"
            )


def _windows(rows: Sequence[tuple[float, float, float]]) -> tuple[Window, ...]:
    """Give each window its length: until the next begins; the last is as long as the one before."""
    starts = [start for start, _, _ in rows]
    lengths = [after - before for before, after in pairwise(starts)]
    lengths.append(lengths[-1] if lengths else 600.0)
    return tuple(
        Window(start - starts[0], length, rate, variance)
        for (start, rate, variance), length in zip(rows, lengths, strict=True)
    )


def _servegen(path: Path, rows: Iterator[Row]) -> Trace:
    names, found = ("window_start_s", "rate_rps", "count_variance_per_s"), list[Rate]()
    for row in rows:
        start, rate, variance = _numbers(path, row, *names)
        found.append((row[0], start, rate, variance))
    return _from_rates(path, found)


def _rates(path: Path, rows: Iterator[Row]) -> Trace:
    found = list[Rate]()
    for row in rows:
        start, rate = _numbers(path, row, "time", "rate")
        found.append((row[0], start, rate, 0.0))
    return _from_rates(path, found)


def _from_rates(path: Path, rows: Sequence[Rate]) -> Trace:
    _check_order(path, [(line, start) for line, start, _, _ in rows], apart=True)
    return Trace(windows=_windows([(start, rate, variance) for _, start, rate, variance in rows]))


def _requests(path: Path, rows: Iterator[Row]) -> Trace:
    return _counted(path, rows, ("input_tokens", "output_tokens"), _seconds)


def _azure(path: Path, rows: Iterator[Row]) -> Trace:
    return _counted(path, rows, ("ContextTokens", "GeneratedTokens"), _timestamp)


def _counted(
    path: Path,
    rows: Iterator[Row],
    names: tuple[str, str],
    clock: Callable[[Path, int, str], float],
) -> Trace:
    """Read a time and two counts of tokens in each row."""
    found = list[Found]()
    for row in rows:
        line, cells = row[0], _cells(path, row, 3)
        read, made = (_tokens(path, line, n, c) for n, c in zip(names, cells[1:], strict=False))
        found.append((line, clock(path, line, cells[0]), read, made, 0))
    return _from_requests(path, found)


def _seconds(path: Path, line: int, text: str) -> float:
    return _number(path, line, "time", text)


def _timestamp(path: Path, line: int, text: str) -> float:
    """Read ``2023-11-16 18:15:46.6805900`` or ``2024-05-10 00:00:00.009930+00:00``.

    Python cuts off what is beyond microseconds.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(f"{path}:{line}: TIMESTAMP {text[:40]!r} is not a date and time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _mooncake(path: Path) -> Trace:
    """Read requests; a prompt's first blocks that came before count as cached, by whomever."""
    found, seen = list[Found](), set[int]()
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise TraceError(f"{path}:{number}: not a JSON object") from None
        if not isinstance(record, dict):
            raise TraceError(f"{path}:{number}: not a JSON object")
        time = _number(path, number, "timestamp", record.get("timestamp"))
        prompt, answer = (
            _tokens(path, number, name, record.get(name))
            for name in ("input_length", "output_length")
        )
        blocks = _blocks(path, number, record.get("hash_ids", []))
        known = sum(1 for _ in takewhile(seen.__contains__, blocks))
        seen.update(blocks)
        cached = max(0, min(known * BLOCK, prompt - 1))  # the last token is always computed
        found.append((number, time / 1000, prompt, answer, cached))
    return _from_requests(path, found)


def _blocks(path: Path, line: int, blocks: object) -> list[int]:
    if isinstance(blocks, list) and all(type(block) is int for block in blocks):
        return blocks
    raise TraceError(f"{path}:{line}: hash_ids is not a list of whole numbers")


def _from_requests(path: Path, found: Sequence[Found]) -> Trace:
    _check_order(path, [(line, time) for line, time, *_ in found])
    begin = found[0][1]
    return Trace(requests=tuple(Request(time - begin, *tokens) for _, time, *tokens in found))


def _looks_like_client(line: str) -> bool:
    cells = line.strip().split(",")
    return len(cells) >= 3 and cells[0].replace(".", "", 1).isdigit()


def _client(path: Path) -> list[Rate]:
    """Read one client: the variance of its count is rate × CV², that of a renewal process."""
    rows = list[Rate]()
    for row in _rows(path):
        number, cells = row[0], _cells(path, row, 3)
        # A client that was away in a window has empty cells.
        start, rate, cv = (
            _number(path, number, name, cell or "0")
            for name, cell in zip(("start", "rate", "cv"), cells, strict=False)
        )
        rows.append((number, start, rate, rate * cv * cv))
    return rows


def _sum_clients(folder: Path) -> Trace:
    """Add up a folder's clients, window by window."""
    files = sorted(folder.glob("*trace*.csv"))
    if not files:
        raise TraceError(f"{folder}: no *trace*.csv in it")
    sums = dict[float, tuple[float, float]]()
    for file in files:
        rows = _client(file)
        _check_order(file, [(line, start) for line, start, _, _ in rows], apart=True)
        for _, start, rate, variance in rows:
            rates, variances = sums.get(start, (0.0, 0.0))
            sums[start] = rates + rate, variances + variance
    return Trace(windows=_windows([(start, *sums[start]) for start in sorted(sums)]))


FORMS: dict[tuple[str, ...], Callable[[Path, Iterator[Row]], Trace]] = {
    ("window_start_s", "rate_rps", "count_variance_per_s"): _servegen,
    ("time", "rate"): _rates,
    ("time", "input_tokens", "output_tokens"): _requests,
    ("timestamp", "contexttokens", "generatedtokens"): _azure,
}
