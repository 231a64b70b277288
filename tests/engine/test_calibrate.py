"""`overspill calibrate` on the real llama.cpp, and a simulation with what it found."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from conftest import Served
from overspill.cli.main import app


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_parameters_of_a_real_engine_drive_a_simulation(
    launch: Callable[..., Served], tmp_path: Path
) -> None:
    engine = launch(CONTEXT_LENGTH=512, MAX_SEQUENCES=2, SERVED_NAME="chat").wait()
    file, load = tmp_path / "engine.yaml", tmp_path / "load.csv"
    options = ("--concurrency", "2", "--prompt", "64", "--answer", "16", "--requests", "20")
    found = json.loads(
        run("calibrate", engine.url, "--model", "chat", *options, "--seconds", "300",
            "--write", str(file), "-o", "json")
    )  # fmt: skip
    assert "20 requests, up to 2 at a time" in found["source"]
    assert found["beta"] > 0, "on a CPU every token computed takes time"
    assert found["residuals"]["ttft"] > 0
    load.write_text("time,input_tokens,output_tokens\n" + "".join(f"{n},9,9\n" for n in range(90)))
    simulate = ("simulate", str(load), "--level", "discrete", "--policy", "hpa", "-o", "json")
    (line,) = json.loads(run(*simulate, "--engine", str(file)))["policies"]
    assert line["policy"] == "hpa"
