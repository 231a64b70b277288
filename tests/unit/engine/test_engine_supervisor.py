"""The supervisor with a child that is a real HTTP server with llama.cpp's metrics, but no model."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SUPERVISE = """
import sys
from overspill.engine import supervisor
from overspill.engine.base import Launch
from overspill.engine.errors import EngineError
from overspill.engine.llamacpp import LlamaCpp
supervisor.block_signals()
try:
    launch = Launch((sys.executable, *sys.argv[3:]), {"OVERSPILL_TEST": "given"})
    supervisor.supervise(LlamaCpp(), launch, int(sys.argv[1]), float(sys.argv[2]))
except EngineError as error:
    sys.stderr.write(f"{error}\\n")
    sys.exit(error.exit_status)
"""

# Like llama.cpp's server it ends with its supervisor, however that ends.
LEASH = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
"""
SERVER = f"""
{LEASH}
import http.server, pathlib
running = pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with running.with_suffix(".looks").open("a") as looks:
            looks.write("look ")
        page = f"llamacpp:requests_processing {{running.read_text()}}\\n"
        page += "llamacpp:requests_deferred 0\\n"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page.encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.02)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(port: int) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def run(drain: float, *child: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SUPERVISE, str(port), str(drain), *child]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def server(tmp_path: Path, port: int) -> tuple[str, ...]:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "running").write_text("1")
    return str(tmp_path / "server.py"), str(port), str(tmp_path / "running")


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).close()
    except OSError:
        return False
    return True


def looks(tmp_path: Path) -> int:
    return len((tmp_path / "running.looks").read_text().split())


def test_it_stops_when_the_last_request_is_done(
    tmp_path: Path,
    port: int,
    start: Callable[..., "subprocess.Popen[str]"],
    server: tuple[str, ...],
) -> None:
    engine = start(60, *server)
    until(lambda: answers(port))
    engine.send_signal(signal.SIGTERM)
    before = looks(tmp_path)
    until(lambda: looks(tmp_path) >= before + 5)  # it keeps looking while one request runs
    assert engine.poll() is None
    (tmp_path / "running").write_text("0")
    assert engine.wait(timeout=20) == 0
    assert not answers(port)  # the child is gone too


def test_nothing_is_left_of_a_supervisor_that_was_killed(
    port: int, start: Callable[..., "subprocess.Popen[str]"], server: tuple[str, ...]
) -> None:
    engine = start(60, *server)
    until(lambda: answers(port))
    engine.kill()
    until(lambda: not answers(port))


def test_it_stops_when_its_time_is_up(
    port: int, start: Callable[..., "subprocess.Popen[str]"], server: tuple[str, ...]
) -> None:
    engine = start(0.5, *server)
    until(lambda: answers(port))
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(timeout=20) == 0


def test_it_stops_at_once_while_nothing_listens_yet(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    loading = tmp_path / "loading.py"
    up = str(tmp_path / "up")
    loading.write_text(f"{LEASH}\nimport time; open({up!r}, 'w'); time.sleep(60)")
    engine = start(60, str(loading))
    until((tmp_path / "up").exists)
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(timeout=20) == 0


def test_a_crash_is_told(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    engine = start(60, "-c", "import sys; sys.exit('GGML_ASSERT failed')")
    _, stderr = engine.communicate(timeout=20)
    assert engine.returncode == 5
    assert stderr.splitlines()[-1] == (
        "EngineCrashed: llama.cpp ended with status 1: GGML_ASSERT failed"
    )


def test_an_engine_may_clean_up_after_itself(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        f"{LEASH}\nimport pathlib, signal\nfolder = pathlib.Path({str(tmp_path)!r})\n"
        "def end(*_):\n    (folder / 'cleaned').touch()\n    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n(folder / 'up').touch()\nsignal.pause()\n"
    )
    engine = start(0, str(child))
    until((tmp_path / "up").exists)
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(timeout=20) == 0
    assert (tmp_path / "cleaned").exists()
