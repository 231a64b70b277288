"""What all stories share: Overspill installed once, a namespace and a key for each story.

The stories run on the cluster of `make cluster-up` with the images of `make images`; nothing
in them is simulated. Waits say what they wait for and end with an error, never by time alone.
"""

import re
from collections.abc import Iterator

import pytest

from e2e.data_path import LONG
from e2e.story import Story
from lab import platform
from lab.kube import Kube

# Measurements, whose seconds want a machine with little else to do: `make chaos` takes them.
collect_ignore = [] if LONG else ["cold_start", "step_spill"]


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The local cluster."""
    return platform.local_kube()


@pytest.fixture(scope="session")
def installed(kube: Kube) -> Kube:
    """The cluster with Overspill and the stand-in cloud in it."""
    platform.install(kube, platform.values())
    platform.start_cloud(kube, ["*"])
    return kube


@pytest.fixture
def story(installed: Kube, request: pytest.FixtureRequest) -> Iterator[Story]:
    """A namespace of the story's own with a key; gone afterwards, with its GPUs."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    story = Story.begin(installed, f"s-{name}"[:40].rstrip("-"))
    try:
        yield story
    finally:
        if request.session.testsfailed:
            print(story.describe())
        story.end()
