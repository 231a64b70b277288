"""`make test`: everything that CI runs, ending in one line that counts all of it.

The steps run in order; a failed test does not stop the later ones, a failed preparation
does. Each pytest run leaves a JUnit file in build/reports, and the last line is their sum.
"""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "reports"

# (what, command, whether later steps need it)
STEPS: list[tuple[str, list[str], bool]] = [
    ("a Prometheus for the tests", ["make", "prometheus"], True),
    ("a Redis for the story of Argo CD", ["make", "redis"], True),
    ("format, lint, types, layers, generated files, unit tests", ["make", "check"], False),
    # A new cluster, so that nothing of an earlier run or of the demo takes part.
    ("an end to the old cluster", [sys.executable, "hack/cluster/main.py", "down"], True),
    ("the local cluster", [sys.executable, "hack/cluster/main.py", "up"], True),
    ("how the local cluster heals and ends", ["make", "test-cluster"], False),
    ("the images", [sys.executable, "hack/images.py", "build", "--load"], True),
    ("what the images hold", ["make", "image-contents"], False),
    (
        "tests against the API server; beside them the engine, the loader, LiteLLM's proxy, a soak",
        ["make", "--jobs=3", "--keep-going", "apiserver", "beside", "soak-short"],
        False,
    ),
    ("the stories of e2e/", ["make", "e2e"], False),
]


def run_step(what: str, command: list[str]) -> bool:
    """Run one step and say how long it took."""
    print(f"\n=== {what}: {' '.join(command[-3:])}", flush=True)
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT)
    verdict = "ok" if done.returncode == 0 else f"FAILED (status {done.returncode})"
    print(f"=== {what}: {verdict} after {time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


def reports() -> list[ElementTree.Element]:
    """Return what each pytest run has reported."""
    return [ElementTree.parse(path).getroot() for path in sorted(REPORTS.glob("*.xml"))]


def failures() -> list[str]:
    """Name each test that failed, with the beginning of its reason: a long log is often cut."""
    lines = []
    for report in reports():
        for case in report.iter("testcase"):
            for bad in [*case.iter("failure"), *case.iter("error")]:
                reason = (bad.get("message") or "").strip()[:1000]
                lines.append(f"FAILED {case.get('classname')}::{case.get('name')}: {reason}")
    return lines


def count() -> tuple[int, int, int]:
    """Return passed, failed and skipped over all reports."""
    passed = failed = skipped = 0
    for report in reports():
        for suite in report.iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - left
            failed, skipped = failed + bad, skipped + left
    return passed, failed, skipped


def main() -> int:
    """Run all steps; return 0 only when each succeeded."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in REPORTS.glob("*.xml"):
        old.unlink()
    broken = []
    for what, command, needed in STEPS:
        if not run_step(what, command):
            broken.append(what)
            if needed:
                break
    passed, failed, skipped = count()
    if broken:
        print(f"\nDid not succeed: {'; '.join(broken)}")
        failed = max(failed, 1)
        print("\n".join(failures()))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if broken or failed else 0


if __name__ == "__main__":
    sys.exit(main())
