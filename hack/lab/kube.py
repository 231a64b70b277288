"""kubectl and helm as a user runs them, and waiting for what they show."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class CommandFailed(RuntimeError):
    """A command ended with a status other than 0; the text is what it printed on stderr."""


def eventually(what: str, probe: Callable[[], T], timeout: float, interval: float = 0.5) -> T:
    """Return the first true value of ``probe``.

    :param what: named in the error when the time is over.
    :param timeout: seconds.
    :raises AssertionError: with the last value when none was true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s; last seen: {value!r}")
        time.sleep(interval)


@dataclass(frozen=True)
class Kube:
    """One cluster, reached with the command-line tools.

    :param kubeconfig: path of the kubeconfig file; the caller's own KUBECONFIG is not looked at.
    :param path: folder with kubectl and helm, put before PATH.
    :param context: context in that file; empty means the current one.
    """

    kubeconfig: str
    path: str = ""
    context: str = ""

    @property
    def env(self) -> dict[str, str]:
        """Environment for programs that talk to this cluster."""
        path = os.pathsep.join(p for p in (self.path, os.environ["PATH"]) if p)
        return os.environ | {"KUBECONFIG": self.kubeconfig, "PATH": path}

    def command(
        self, *argv: str, stdin: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program against this cluster.

        :raises CommandFailed: when it fails and ``check`` is set.
        """
        done = subprocess.run(
            argv, input=stdin, env=self.env, timeout=timeout, capture_output=True, text=True
        )
        if check and done.returncode:
            raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def kubectl(self, *args: str, **options: Any) -> str:
        """Run kubectl and return what it printed."""
        context = ("--context", self.context) if self.context else ()
        return self.command("kubectl", *context, *args, **options).stdout

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """Return one object, None when there is none of that name."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str, labels: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind in a namespace that carry the labels."""
        text = self.kubectl("get", kind, "-n", namespace, "-l", labels, "-o", "json")
        return list(json.loads(text)["items"])

    def apply(self, *objects: dict[str, Any], namespace: str = "") -> None:
        """Apply objects on the server's side, as `kubectl apply --server-side` does."""
        where = ("-n", namespace) if namespace else ()
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", *where, "-f", "-", stdin=text)

    def patch(self, kind: str, name: str, namespace: str, patch: dict[str, Any]) -> None:
        """Change an object by a JSON merge patch."""
        self.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))

    def delete(self, kind: str, name: str, namespace: str, *options: str) -> None:
        """Delete an object and wait until it is gone."""
        self.kubectl("delete", kind, name, "-n", namespace, "--ignore-not-found", *options)


@contextmanager
def forwarded(kube: Kube, namespace: str, service: str, port: int) -> Iterator[str]:
    """Make a Service's port reachable on this machine; gives its address.

    :raises CommandFailed: when kubectl could not forward it.
    """
    context = ("--context", kube.context) if kube.context else ()
    what = (f"service/{service}", f":{port}", "-n", namespace, "--address", "127.0.0.1")
    with subprocess.Popen(
        ["kubectl", *context, "port-forward", *what],
        env=kube.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not found:
                raise CommandFailed(f"kubectl port-forward {service}: {line.strip()}")
            threading.Thread(target=process.stdout.read, daemon=True).start()  # type: ignore[union-attr]
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def condition(obj: dict[str, Any] | None, type_: str) -> dict[str, Any]:
    """Return the condition of that type, an empty dict when it is not there."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_), {})


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod counts as a replica that answers."""
    leaving = "deletionTimestamp" in pod["metadata"]
    return not leaving and condition(pod, "Ready").get("status") == "True"
