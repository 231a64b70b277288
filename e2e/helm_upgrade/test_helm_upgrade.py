"""Helm goes back to the chart before and upgrades again, under load, and no answer is lost.

"Before" is the commit before the last one that changed the chart's templates or the definitions,
with its own chart, definitions, operator and gateway. The engines are paced ones
(e2e/data_path.py).
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import data_path
from e2e.data_path import LONG, RATE, STREAM_SECONDS
from e2e.story import Story
from lab import platform
from lab.kube import ROOT, Kube, eventually
from lab.load import Load

LOOPS = data_path.LOOPS if LONG else 10  # half of short answers, half of streams
SECONDS = STREAM_SECONDS if LONG else 10  # of one stream
SHAPES_THE_CHART = ("charts/overspill/templates", "crds")  # other files may change in words only
BUILD_TIMEOUT = 1800  # seconds, for the two images of the version before
DEPLOYED = ("operator", "gateway")


@dataclass(frozen=True)
class Version:
    """A checkout: its chart, its definitions and the values for its own images."""

    folder: Path
    values: dict[str, Any]

    @property
    def chart(self) -> Path:
        """Its chart."""
        return self.folder / "charts" / "overspill"

    @property
    def schemas(self) -> dict[str, Any]:
        """The schema of each definition by its name."""
        found = [yaml.safe_load(p.read_text()) for p in (self.folder / "crds").glob("*.yaml")]
        return {crd["metadata"]["name"]: schema(crd) for crd in found}


def schema(crd: dict[str, Any]) -> Any:
    """The schema of a definition's only version."""
    (version,) = crd["spec"]["versions"]
    return version["schema"]


def git(*arguments: str) -> bytes:
    """Run git on this checkout."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=120)
    if done.returncode:
        pytest.fail(
            "the chart before comes from the project's git history, and a clone without it cannot "
            f"tell this story: git {' '.join(arguments)}: {done.stderr.decode().strip()}"
        )
    return done.stdout


def commit_before() -> str:
    """The commit before the last that changed the chart; a shallow clone gets its history first."""
    if git("rev-parse", "--is-shallow-repository").strip() == b"true":
        git("fetch", "--quiet", "--unshallow")
    last = git("log", "-1", "--format=%H", "--", *SHAPES_THE_CHART).decode().strip()
    return git("rev-parse", "--verify", f"{last}^").decode().strip()


def with_two_gateways(values: dict[str, Any]) -> dict[str, Any]:
    """Values for two gateways behind the one Service."""
    return values | {"gateway": values["gateway"] | {"replicas": 2}}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The version before, with its operator and gateway built; all other images are today's."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit_before()))) as files:
        files.extractall(folder, filter="data")
    (folder / "build").mkdir()
    (folder / "build" / "images.json").write_text(json.dumps(platform.images()))
    build = ["hack/images.py", "build", "--only", ",".join(DEPLOYED), "--load"]
    subprocess.run([sys.executable, *build], cwd=folder, check=True, timeout=BUILD_TIMEOUT)
    program = "import json; from lab import platform; print(json.dumps(platform.values()))"
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=os.environ | {"PYTHONPATH": "hack"},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return Version(folder, with_two_gateways(json.loads(said.stdout)))


@pytest.fixture
def now(installed: Kube) -> Iterator[Version]:
    """This version; whatever happened, the next story finds it installed, with one gateway."""
    version = Version(ROOT, with_two_gateways(platform.values()))
    with data_path.gateways(installed, 2):
        yield version
        if not runs(installed, version):
            platform.install(installed, version.values)


def runs(kube: Kube, version: Version) -> bool:
    """Whether all pods of both parts are of that version, but for those that leave."""
    for part in DEPLOYED:
        labels = f"app.kubernetes.io/component={part},app.kubernetes.io/instance={platform.RELEASE}"
        pods = kube.list("pods", platform.NAMESPACE, labels)
        staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        images = {c["image"] for pod in staying for c in pod["spec"]["containers"]}
        if images != {version.values[part]["image"]}:
            return False
    return True


def change_to(story: Story, version: Version, loads: list[Load]) -> None:
    """Install a version over the other, and see that it serves and its definitions are there."""
    platform.install(story.kube, version.values, version.chart)
    eventually("this version runs, no other", lambda: runs(story.kube, version), timeout=60)
    for name, wanted in version.schemas.items():
        text = story.kube.kubectl("get", "crd", name, "-o", "json")
        assert schema(json.loads(text)) == wanted, f"definition {name} is not this version's"
    seen = [len(load.sent) for load in loads]
    eventually(
        "answers of both lengths through this version",
        lambda: all(len(x.sent) > n for x, n in zip(loads, seen, strict=True)),
        timeout=SECONDS + 60,
    )


def test_upgrade_and_back_under_load(story: Story, before: Version, now: Version) -> None:
    # Of an engine's slots a gateway that drains keeps its share.
    data_path.paced(story, "chat", slots=3 * data_path.LOOPS)
    began = time.monotonic()
    with (
        data_path.streams(story, "chat", SECONDS).running(LOOPS // 2) as long,
        data_path.streams(story, "chat", 0.6).running(LOOPS // 2) as short,
    ):
        eventually("load is flowing", lambda: len(short.sent) >= LOOPS, timeout=60)
        change_to(story, before, [long, short])
        change_to(story, now, [long, short])
    data_path.assert_whole(long.sent, round(SECONDS * RATE), at_least=LOOPS)
    data_path.assert_whole(short.sent, 3, at_least=10 * LOOPS)
    data_path.record(
        f"helm to the version before and back: {LOOPS} loops on paced engines, {len(long.sent)} "
        f"streams of {SECONDS} s and {len(short.sent)} of 0.6 s, 0 failed, 0 truncated, in "
        f"{time.monotonic() - began:.0f} s"
    )
