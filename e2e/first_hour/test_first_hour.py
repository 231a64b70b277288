"""Every command block of docs/first-hour.md, typed in its order into one shell."""

import re
from collections.abc import Iterator

import pytest

from lab import platform
from lab.kube import ROOT, Kube, eventually

PAGE = (ROOT / "docs/first-hour.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NAMESPACE = ("-n", platform.NAMESPACE)


@pytest.fixture
def from_nothing(installed: Kube) -> Iterator[Kube]:
    """The cluster without Overspill, as the page finds it; installed again for the next story."""
    platform.overspill(installed, "uninstall", "--purge", "--yes", timeout=180)
    installed.kubectl("delete", "namespace", "cloud", "--ignore-not-found", "--timeout=120s")
    services = ("get", "infsvc,pods", "-n", "default", "-o", "name", "--ignore-not-found")
    eventually("nothing runs", lambda: not installed.kubectl(*services, check=False), 60)
    yield installed
    installed.kubectl("delete", "namespace", "cloud", "--ignore-not-found", "--timeout=120s")
    installed.kubectl("delete", "secret", "cloud-key", "-n", "default", "--ignore-not-found")
    platform.install(installed, platform.values())
    platform.start_cloud(installed, ["*"])


def test_first_hour(from_nothing: Kube) -> None:
    script = "\n".join(f"echo '# block {n}'\n{block}" for n, block in enumerate(BLOCKS, 1))
    done = from_nothing.command(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        f"exec 2>&1; cd {ROOT}\n{script}",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    shown = re.split(r"^# block \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(shown) == len(BLOCKS) >= 10
    answers = re.findall(r"\[(local|default/cloud)( \(ColdStart\))?(?:, \$[0-9.]+)?\]", done.stdout)
    assert answers == [
        ("local", ""),
        ("local", ""),
        ("default/cloud", " (ColdStart)"),
        ("local", ""),
    ]
    assert "x-overspill-destination: local" in done.stdout
