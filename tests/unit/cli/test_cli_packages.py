"""The command works with the extra [cli] alone, as the README installs it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
IMPORTS = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import overspill.cli
from overspill.cli.errors import CommandError
for module in pkgutil.iter_modules(overspill.cli.__path__, "overspill.cli."):
    try:
        importlib.import_module(module.name)
    except CommandError as error:
        print(error)
"""


def modules(extra: str) -> set[str]:
    """What the packages of an extra are imported as."""
    return {re.split("[<>=~\\[]", line)[0].replace("-", "_") for line in EXTRAS[extra]}


def test_a_command_needs_no_other_packages_or_says_which() -> None:
    others = modules("operator") | modules("gateway") | modules("engine") | modules("report")
    absent = sorted(others - modules("cli"))
    assert {"kopf", "xxhash", "xllamacpp"} <= set(absent)
    command = [sys.executable, "-c", IMPORTS, *absent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all("pip install 'overspill[" in line for line in done.stdout.splitlines()), done.stdout
