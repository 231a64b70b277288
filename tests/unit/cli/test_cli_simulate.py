"""`overspill simulate`: table, JSON, chart, and what it says of wrong use."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from overspill.cli.errors import CommandError
from overspill.cli.main import app


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    rows = [f"{600 * n},{10 if n % 2 else 20}" for n in range(4)]
    path.write_text("\n".join(["time,rate", *rows]) + "\n")
    return path


def simulated(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["simulate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_all_policies_cheapest_first(trace: Path) -> None:
    found = json.loads(simulated(str(trace), "-o", "json"))
    costs = [line["cost"] for line in found["policies"]]
    assert costs == sorted(costs)
    assert costs[0] >= found["optimum"]
    assert {"overspill", "lcp", "hpa", "constant"} <= {p["policy"] for p in found["policies"]}


def test_a_table_and_a_chart(trace: Path, tmp_path: Path) -> None:
    chart = tmp_path / "chart.png"
    text = simulated(
        str(trace), "--policy", "lcp", "--policy", "cloud", "--learn", "0.5", "--plot", str(chart)
    )
    assert "with hindsight" in text
    assert "hpa" not in text
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_page_by_itself(trace: Path) -> None:
    text = simulated(str(trace), "--policy", "lcp", "--policy", "hpa", "-o", "html")
    assert text.startswith("<!doctype html>")
    assert "with hindsight" in text
    assert "Autoscalers on load.csv" in text


def test_every_request(trace: Path) -> None:
    options = ("--level", "discrete", "--end", "300", "--policy", "overspill", "--policy", "wva")
    found = json.loads(simulated(str(trace), *options, "-o", "json"))
    assert found["optimum"] is None
    assert {p["policy"] for p in found["policies"]} == {"overspill", "wva"}
    assert all(0.9 < p["attained"] <= 1 for p in found["policies"])
    assert "first token" in simulated(str(trace), *options, "-o", "html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "magic"), "--policy magic is not known; known are: overspill"),
        (("--level", "discrete", "--policy", "constant"), "known are: overspill, lcp"),
        (("--level", "discrete", "--learn", "0.5"), "--learn is of the fluid level"),
        (("--engine", "gpu"), "--engine is of --level discrete"),
        (("--level", "discrete", "--engine", "magic"), "magic is neither a file nor one of: gpu"),
        (("--level", "discrete", "--scale", "1e9"), "requests: give a slice"),
        (("--begin", "1e6"), "nothing between"),
        (("--end", "3"), "ticks of 15 s"),
    ],
)
def test_wrong_use_names_the_option(trace: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        simulated(str(trace), *arguments)
    assert caught.value.status == 2
