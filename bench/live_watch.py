"""Which replicas there are, looked at every two seconds: what bench/live.py bills and draws."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from subprocess import TimeoutExpired
from typing import Any

from lab.kube import CommandFailed, Kube, is_ready

INTERVAL = 2.0  # seconds


@dataclass
class Life:
    """A pod's, from its order to its end; a GPU is paid for all of it. Seconds since the epoch."""

    begin: float
    end: float


@dataclass(frozen=True)
class Look:
    """What there was at a time, by system."""

    t: float  # seconds since the epoch
    pods: Mapping[str, int]
    ready: Mapping[str, int]


@dataclass
class Watch:
    """Looks at the pods of services, in a thread until stopped.

    :param systems: by the namespace in which each has its service.
    :param labels: of the pods.
    """

    kube: Kube
    systems: Mapping[str, str]
    labels: str
    looks: list[Look] = field(default_factory=list)
    lives: dict[str, dict[str, Life]] = field(default_factory=dict)  # by system and uid
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def note(self, now: float, pods: list[dict[str, Any]]) -> None:
        """Take note of the pods that there are.

        :param now: seconds since the epoch.
        """
        counts, ready = (dict.fromkeys(self.systems.values(), 0) for _ in range(2))
        for pod in pods:
            metadata = pod["metadata"]
            system = self.systems.get(metadata["namespace"])
            if system is None:
                continue
            counts[system] += 1
            ready[system] += is_ready(pod)
            created = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
            lives = self.lives.setdefault(system, {})
            lives.setdefault(metadata["uid"], Life(created, now)).end = now
        self.looks.append(Look(now, counts, ready))

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                text = self.kube.kubectl("get", "pods", "-A", "-l", self.labels, "-o", "json")
            except (CommandFailed, TimeoutExpired):
                continue
            self.note(time.time(), json.loads(text)["items"])


def seconds(lives: Mapping[str, Life], begin: float, end: float) -> float:
    """Return the replica-seconds within a time; all in seconds since the epoch."""
    return sum(max(0.0, min(x.end, end) - max(x.begin, begin)) for x in lives.values())
