"""`make test`: what it goes on after, and the one line in which it ends."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SUITE = '<testsuite tests="{}" failures="{}" errors="{}" skipped="{}">{}</testsuite>'
REPORT = f"<testsuites>{SUITE}</testsuites>"
BROKEN = '<testcase classname="a" name="b"><failure message="why">trace</failure></testcase>'


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program; its name is one of Python's own packages."""
    spec = importlib.util.spec_from_file_location("everything", ROOT / "hack/test.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "REPORTS", tmp_path / "reports")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/of-yesterday.xml").write_text(REPORT.format(99, 0, 0, 0, ""))
    return module


def step(name: str, status: int = 0, report: str = "", *, needed: bool = False) -> object:
    """A step that writes a report and ends with a status."""
    write = f"open('reports/{name}.xml', 'w').write({report!r})" if report else "pass"
    return (name, [sys.executable, "-c", f"{write}\nraise SystemExit({status})"], needed)


GOOD = step("good", report=REPORT.format(5, 0, 0, 1, ""))
BAD = step("bad", 1, REPORT.format(4, 1, 1, 0, BROKEN))


@pytest.mark.parametrize(
    ("steps", "status", "last"),
    [
        ([GOOD], 0, "4 passed, 0 failed, 1 skipped"),
        ([BAD, GOOD], 1, "6 passed, 2 failed, 1 skipped"),
        ([step("lint", 2), GOOD], 1, "4 passed, 1 failed, 1 skipped"),
        ([step("cluster", 1, needed=True), GOOD], 1, "0 passed, 1 failed, 0 skipped"),
    ],
    ids=["all well", "failed tests", "a failed check without tests", "a failed preparation"],
)
def test_one_line_counts_all_of_it(
    everything: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: list[object],
    status: int,
    last: str,
) -> None:
    monkeypatch.setattr(everything, "STEPS", steps)
    assert everything.main() == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert ("FAILED a::b: why" in lines) == (BAD in steps)
