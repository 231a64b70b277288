"""Every command block of docs/first-hour.md, typed in its order into one shell."""

import re
from collections.abc import Iterator

import pytest

from lab import platform
from lab.kube import ROOT, Kube, eventually

PAGE = (ROOT / "docs/first-hour.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^\[(local|default/cloud)(?: \((\w+)\))?(?:, \$[0-9.]+)?\]$", re.MULTILINE)
CLOUD = ("delete", "namespace", "cloud", "--ignore-not-found")


@pytest.fixture
def from_nothing(installed: Kube) -> Iterator[Kube]:
    """The cluster without Overspill, as the page finds it; installed again for the next story."""
    installed.kubectl(*CLOUD, "--wait=false")
    platform.overspill(installed, "uninstall", "--purge", "--yes", timeout=180)
    installed.kubectl(*CLOUD, "--timeout=120s")
    left = ("get", "pods", "-n", "default", "-o", "name")
    eventually("nothing runs", lambda: not installed.kubectl(*left), 60)
    yield installed
    installed.kubectl(*CLOUD, "--timeout=120s")
    installed.kubectl("delete", "secret", "cloud-key", "-n", "default", "--ignore-not-found")
    platform.install(installed, platform.values())
    platform.start_cloud(installed, ["*"])


def test_first_hour(from_nothing: Kube) -> None:
    # Not every command ends its last line.
    told = [f'echo -e "\\n# block {n}, $SECONDS s"\n{block}' for n, block in enumerate(BLOCKS, 1)]
    script = "\n".join(["exec 2>&1", f"cd {ROOT}", *told, 'echo -e "\\n# end, $SECONDS s"'])
    done = from_nothing.command("bash", "-euo", "pipefail", "-c", script, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    times = re.findall(r"^# (?:block \d+|end), (\d+) s$", done.stdout, re.MULTILINE)
    assert len(times) == len(BLOCKS) + 1 >= 11
    answers = ANSWER.findall(done.stdout)
    assert [where for where, _ in answers] == ["local", "local", "default/cloud", "local"]
    # The page names both: two services may ask for more than the node has at that moment.
    assert answers[2][1] in ("ColdStart", "ClusterFull")
    assert "x-overspill-destination: local" in done.stdout
    print(f"the first hour: {len(BLOCKS)} blocks, begun and ended after {', '.join(times)} s")
