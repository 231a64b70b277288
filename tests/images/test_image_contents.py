"""What the built images hold (S15, S22): `make images image-contents`.

The base is Debian's essential packages and Python. A shell and the core utilities are among them;
what is not there is anything that compiles, installs, or talks to other machines, and nothing
of ours but one program an image.
"""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import images
import sbom

GOLDEN = yaml.safe_load(Path(__file__).with_name("contents.golden.yaml").read_text())
OURS = {"operator": "operator", "gateway": "gateway", "engine-cpu": "engine"}
FORBIDDEN = re.compile(
    r"(gcc|g\+\+|cc|c\+\+|cpp|clang|ld|gold|as|make|cmake|go|rustc|cargo|tcc)(-.*)?|"
    r"(pip|easy_install|uv|npm|apt|apt-get|aptitude|snap)[0-9.]*|"
    r"curl|wget|nc|ncat|netcat|socat|telnet|ftp|ssh|scp|sftp|rsync|git|dig|nslookup|ping|ip|"
    r"gdb|strace|tcpdump|sudo|doas|docker|kubectl"
)
START_UP = re.compile(r"\.pth$|/(sitecustomize|usercustomize)\.py$")
# Debian's own, for its crash reports: a link into /etc, where there is nothing to run.
KNOWN_START_UP = {"usr/lib/python3.11/sitecustomize.py", "etc/python3.11/sitecustomize.py"}


@functools.cache
def contents(part: str) -> sbom.Contents:
    """What is in the newest image of that part; a run without images fails, it does not skip."""
    if not images.ARCHIVES.exists():
        pytest.fail("no images: run `make images` first", pytrace=False)
    return sbom.contents(Path(json.loads(images.ARCHIVES.read_text())[part]))


@pytest.mark.parametrize("part", OURS)
def test_packages_are_the_listed_ones(part: str) -> None:
    found = contents(part).packages
    assert sorted(p.name for p in found if p.kind == "deb") == GOLDEN["base"]
    assert sorted(p.name for p in found if p.kind != "deb") == GOLDEN[part]


@pytest.mark.parametrize("part", OURS)
def test_programs_are_those_that_a_pod_needs(part: str) -> None:
    programs = contents(part).programs()
    assert [p for p in programs if p.startswith("app/")] == [
        f"app/overspill/bin/overspill-{OURS[part]}"
    ]
    assert [p for p in programs if FORBIDDEN.fullmatch(p.rpartition("/")[2])] == []


@pytest.mark.parametrize("part", OURS)
def test_nothing_runs_because_python_starts(part: str) -> None:
    """The start-up file of litellm 1.82.8 ran without any import."""
    found = {path for path in contents(part).files if START_UP.search(path)}
    assert found <= KNOWN_START_UP


@pytest.mark.parametrize("part", OURS)
def test_no_key_and_no_other_language_comes_along(part: str) -> None:
    """No C headers or static libraries to build with, no private keys, no git history."""
    bad = re.compile(r"(^|/)\.git/|(^|/)id_(rsa|ed25519)$|^usr/include/|\.a$|_key\.pem$")
    assert [path for path in contents(part).files if bad.search(path)] == []


@pytest.mark.parametrize("part", OURS)
def test_the_bill_of_materials_is_that_of_the_image(part: str) -> None:
    written = (images.BILLS / f"{part}.cdx.json").read_text()
    assert written == sbom.bill(contents(part), images.DEPLOYED[part])


def test_two_builds_of_one_source_are_one_image() -> None:
    command = [sys.executable, "hack/images.py", "rebuild", "--only", "operator"]
    done = subprocess.run(command, cwd=images.ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
