"""Every package that is installed anywhere is pinned by version and hash (S22)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("images/*/requirements.txt")])
PIN = re.compile(r"^[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;]+( ; .+)?$", re.IGNORECASE)
HASH = re.compile(r"^--hash=sha256:[0-9a-f]{64}$")


def requirements(text: str) -> list[tuple[str, list[str]]]:
    """Return each requirement of a lock file with its options."""
    lines = text.replace("\\\n", " ").splitlines()
    found = []
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            pin, *options = re.split(r"\s+(?=--)", line)
            found.append((pin.strip(), options))
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_a_lock_for_every_image() -> None:
    images = {name(p) for p in LOCKS}
    for lock in ("operator", "gateway", "engine", "build", "dev"):
        assert f"requirements/{lock}.txt" in images


@pytest.mark.parametrize("path", LOCKS, ids=name)
def test_every_line_has_a_version_and_hashes(path: Path) -> None:
    found = requirements(path.read_text())
    assert found
    for pin, options in found:
        assert PIN.match(pin), f"{pin}: not pinned"
        assert options, f"{pin}: no hash"
        assert all(HASH.match(option) for option in options), pin


@pytest.mark.parametrize("line", ["a", "a>=1", "a==1", "-e .", "git+https://x/y", "a @ https://x"])
def test_a_loose_line_is_found(line: str) -> None:
    ((pin, options),) = requirements(line)
    assert not (PIN.match(pin) and options)


def test_pip_is_told_to_check_them_wherever_it_installs() -> None:
    """A Dockerfile or the Makefile that installs without --require-hashes, or with an index."""
    for path in [*ROOT.glob("images/*/Dockerfile"), ROOT / "Makefile"]:
        commands = re.sub(r"\\\n", " ", path.read_text()).splitlines()
        for line in (c for c in commands if re.search(r"pip install", c)):
            for part in re.split(r"&&|\|\|", line):
                if "pip install" in part:
                    own = "--no-deps" in part and ("/src" in part or "-e ." in part)
                    assert own or "--require-hashes" in part, f"{name(path)}: {part}"
            assert "index-url" not in line
