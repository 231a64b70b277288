"""`make cluster-up` says what it is about to do before it does it, and asks on a terminal only."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from localcluster import build, host, layout
from localcluster.progress import ClusterError

FOREIGN = "another Kubernetes node"  # what ends these before anything is built
Up = Callable[..., list[str]]


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Up:
    """Begins `up` on a machine that lacks a package and a build; what was said, asked and done."""
    run = runpy.run_path(str(layout.TOOL / "main.py"))["up"]
    monkeypatch.setattr(layout, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "check", lambda: None)
    monkeypatch.setattr(host, "missing_packages", lambda: ["runc"])
    monkeypatch.setattr(build, "missing", lambda: list(build.MODULES))
    monkeypatch.setattr(host, "foreign_cluster", lambda: True)
    monkeypatch.setattr(host, "install_packages", lambda: print("INSTALLED"))

    def begin(*, terminal: bool, answer: str = "", yes: bool = False) -> list[str]:
        def ask(question: str) -> str:
            print("ASKED")
            return answer

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        with pytest.raises(ClusterError) as ended:
            run(yes)
        return [*capsys.readouterr().out.splitlines(), str(ended.value)]

    return begin


@pytest.mark.parametrize(
    ("terminal", "answer", "yes", "asked", "installed"),
    [
        (False, "", False, False, True),
        (True, "", True, False, True),
        (True, "y", False, True, True),
        (True, "n", False, True, False),
    ],
)
def test_it_says_first_and_asks_on_a_terminal_only(
    up: Up, terminal: bool, answer: str, yes: bool, asked: bool, installed: bool
) -> None:
    lines = up(terminal=terminal, answer=answer, yes=yes)
    assert ("ASKED" in lines) == asked
    assert ("INSTALLED" in lines) == installed
    told = "\n".join(lines[: lines.index("INSTALLED" if installed else "ASKED")])
    for part in ("runc", "kubernetes (6 min)", str(layout.STATE), "ospl-", "firewall", "`down`"):
        assert part in told
    assert (FOREIGN in lines[-1]) == installed, "it ends before it changes anything"
