"""Helm as a user runs it."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/overspill"
LOCAL_HELM = "/var/lib/overspill-cluster/bin/helm"  # of `make cluster-up`
Object = dict[str, Any]


class HelmFailed(Exception):
    """Helm ended with a status other than 0; the text is what it said."""


@dataclass(frozen=True)
class Helm:
    """One helm binary.

    :raises FileNotFoundError: by :meth:`find`, when there is none.
    """

    program: str

    @classmethod
    def find(cls) -> "Helm":
        """Take helm from PATH, else that of the local cluster."""
        program = shutil.which("helm") or LOCAL_HELM
        if not Path(program).exists():
            raise FileNotFoundError("no helm on PATH: `make cluster-up` builds one")
        return cls(program)

    def __call__(self, *args: str) -> str:
        """Run helm and return what it printed."""
        done = subprocess.run([self.program, *args], capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise HelmFailed(done.stderr + done.stdout)
        return done.stdout

    def template(self, **values: Any) -> list[Object]:
        """Render the chart with these values."""
        text = self(
            "template", "overspill", str(CHART), "-n", "overspill-system", *settings(values)
        )
        return [o for o in yaml.safe_load_all(text) if o]


def settings(values: dict[str, Any]) -> list[str]:
    """The values as arguments."""
    return [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def env(deployment: Object) -> dict[str, str]:
    """The plain environment variables of a Deployment's only container."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {e["name"]: e.get("value", "") for e in container["env"]}
