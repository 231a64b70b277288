"""Traces of every form, and what is said of bad ones."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.simulator.fluid import Setting
from overspill.simulator.load import loads
from overspill.simulator.traces import Request, TraceError, Window, read

SUMMED = "window_start_s,rate_rps,count_variance_per_s\n0,2,8\n600,4,1.5e1\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
)
MOONCAKE = (
    '{"timestamp": 500, "input_length": 67, "output_length": 5, "hash_ids": [0, 1]}\n'
    '{"timestamp": 2500, "input_length": 7, "output_length": 1, "hash_ids": [0]}\n'
)


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_servegen_windows(tmp_path: Path) -> None:
    trace = read(written(tmp_path, SUMMED))
    assert trace.windows == (Window(0, 600, 2, 8), Window(600, 600, 4, 15))
    assert trace.duration == 1200


def test_servegen_clients_add_up(tmp_path: Path) -> None:
    """Variance per second is rate × CV²; a client may be away for a window."""
    written(tmp_path, "0,1.0,2.0,Gamma,0.16,6.25\n600,0.5,1.0,Weibull,1.0,2\n", "chunk-0-trace.csv")
    written(tmp_path, "0,3.0,1.0,Gamma,1,1\n600,,,,,\n", "chunk-1-trace.csv")
    assert read(tmp_path).windows == (Window(0, 600, 4, 7), Window(600, 600, 0.5, 0.5))
    assert len(read(tmp_path / "chunk-0-trace.csv").windows) == 2
    written(tmp_path, "600,1.0,1.0,Gamma,1,1\n1200,2.0,1.0,Gamma,1,1\n", "chunk-2-trace.csv")
    assert [w.rate for w in read(tmp_path).windows] == [4, 1.5, 2], "it came later"


def test_azure_tokens(tmp_path: Path) -> None:
    first, second = read(written(tmp_path, AZURE)).requests
    assert first == Request(0.0, 374, 44)
    assert second.time == pytest.approx(4.314579, abs=1e-5)
    zoned = AZURE.replace(".6805900", ".680590+00:00").replace(".9951690", "+00:00")
    assert read(written(tmp_path, zoned)).requests[1].time == pytest.approx(3.31941, abs=1e-5)


def test_mooncake_lines(tmp_path: Path) -> None:
    """Blocks that came before are cached, but for the last token."""
    assert read(written(tmp_path, MOONCAKE)).requests == (Request(0, 67, 5), Request(2, 7, 1, 6))


def test_plain_rates_and_requests(tmp_path: Path) -> None:
    rates = read(written(tmp_path, "time,rate\r\n0,1\r\n60,2\r\n"))
    assert rates.windows == (Window(0, 60, 1, 0), Window(60, 60, 2, 0))
    requests = read(written(tmp_path, "time,input_tokens,output_tokens\n0,9,1\n1.5,8,2\n"))
    assert requests.requests == (Request(0, 9, 1), Request(1.5, 8, 2))


def test_slices_begin_at_zero(tmp_path: Path) -> None:
    trace = read(written(tmp_path, SUMMED))
    assert trace.slice(300, 900).windows == (Window(0, 300, 2, 8), Window(300, 300, 4, 15))
    assert read(written(tmp_path, MOONCAKE)).slice(1, 9).requests == (Request(1, 7, 1, 6),)
    with pytest.raises(TraceError, match="nothing between"):
        trace.slice(5000, 6000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: no known form"),
        ("a,b\n1,2\n", r":1: no known form"),
        ("time,rate\n", "no rows in it"),
        ("time,rate\n0,1\n60\n", r":3: 1 columns instead of 2"),
        ("time,rate\n0,__import__('os')\n", r":2: rate .* is not a number"),
        ("time,rate\n0,nan\n", r":2: rate 'nan' must be finite"),
        ("time,rate\n0,-1\n", r":2: rate '-1' must be finite and not negative"),
        ("time,rate\n60,1\n\n0,1\n", r":4: time is not after that of the row above"),
        (SUMMED + "600,1,1\n", r":4: time is not after"),
        ("0,1,2,Gamma\n0,1,1,Gamma\n", r":2: time is not after"),
        (AZURE + "2023-11-16 18:15:46,1,1\n", r":4: time is before that of the row above"),
        (MOONCAKE + MOONCAKE, r":3: time is before"),
        ("time,input_tokens,output_tokens\n0,1.5,1\n", r":2: input_tokens '1.5' must be a whole"),
        ('time,rate\n0,"1\n', r":2: "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", r":2: TIMESTAMP 'yesterday'"),
        ('{"timestamp": 1}\n', r":1: input_length 'None' is not a number"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n[1]\n', r":2: not a JSON"),
        ('{"timestamp": 0, "input_length"\n', r":1: not a JSON"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
            r":1: hash_ids is not a list of whole numbers",
        ),
        ("0,1,2,Gamma\n600,x,1,Gamma\n", r":2: rate 'x' is not a number"),
    ],
)
def test_bad_input_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(tmp_path / "missing.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="not UTF-8"):
        read(tmp_path / "binary")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match=r"no \*trace\*\.csv"):
        read(tmp_path / "empty")


@settings(max_examples=15)
@given(st.binary(max_size=200))
def test_no_input_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    for head in (b"", b"time,rate\n", b"0,1,1,Gamma\n", b'{"timestamp": 0}\n'):
        path.write_bytes(head + raw)
        try:
            read(path)
        except TraceError:
            continue


def test_windows_are_drawn_with_their_mean_and_variance(tmp_path: Path) -> None:
    text = "window_start_s,rate_rps,count_variance_per_s\n0,40,160\n150000,40,160\n"
    drawn = loads(read(written(tmp_path, text)).slice(0, 150000), Setting(), scale=0.25, seed=1)
    mean = sum(drawn) / len(drawn)
    variance = sum((x - mean) ** 2 for x in drawn) / len(drawn)
    assert len(drawn) == 10000
    assert mean == pytest.approx(40 * 0.25 / 5, rel=0.02)
    assert variance == pytest.approx(160 * 0.25 / 15 / 5**2, rel=0.06)


def test_same_seed_same_load(tmp_path: Path) -> None:
    trace = read(written(tmp_path, SUMMED))
    random.seed(0)
    assert loads(trace, Setting(), seed=3) == loads(trace, Setting(), seed=3)
    assert loads(trace, Setting(), seed=3) != loads(trace, Setting(), seed=4)


def test_requests_are_counted(tmp_path: Path) -> None:
    trace = read(written(tmp_path, "time,input_tokens,output_tokens\n0,1,1\n14,1,1\n15,1,1\n"))
    assert loads(trace, Setting(), scale=2.0) == pytest.approx([2 * 2 / 15 / 5, 2 * 1 / 15 / 5])
