"""Golden files of the runtimes: ``golden/<case>.in.yaml`` → ``golden/<case>.out.yaml``.

`make generate` writes the outputs anew, `make verify` fails when one differs.
"""

from pathlib import Path
from typing import Any

import yaml

from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.runtimes import RenderContext, runtime_of
from overspill.runtimes import render as render_objects

FOLDER = Path(__file__).parent / "golden"
CONTEXT = {
    "engine_image": "registry.example/overspill/engine-cpu:1.2.3",
    "engine_gpu_image": "registry.example/overspill/engine-gpu:1.2.3",
    "pull_policy": "IfNotPresent",
    "release_namespace": "overspill-system",
}


def cases() -> list[str]:
    """Return the names of all cases."""
    return sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))


def service(name: str = "chat", **spec: Any) -> InferenceService:
    """Return a service of that spec, as the API server would hand it out."""
    metadata = {"name": name, "namespace": "team-a", "uid": "6f2c", "generation": 1}
    model = {"uri": "oci://registry.example/models/qwen3:q4"}
    return InferenceService.parse(
        {"metadata": metadata, "spec": {"model": model, **spec}}, unknown="forbid"
    )


def runtime(name: str = "my-engine", **spec: Any) -> InferenceRuntime:
    """Return an InferenceRuntime of that spec."""
    metadata = {"name": name, "namespace": "team-a"}
    image = {"image": "registry.example/engine@sha256:" + "0" * 64}
    return InferenceRuntime.parse(
        {"metadata": metadata, "spec": {**image, **spec}}, unknown="forbid"
    )


def render(case: str) -> str:
    """Return what a case renders to now, as YAML."""
    given = yaml.safe_load((FOLDER / f"{case}.in.yaml").read_text())
    subject = service(**given["spec"])
    context = RenderContext(**CONTEXT, **given.get("context", {}))
    custom = runtime(**given["runtime"]) if "runtime" in given else None
    objects = render_objects(runtime_of(subject, custom), subject, context)
    return yaml.safe_dump_all(objects, sort_keys=False, width=100, allow_unicode=True)


def regenerate() -> dict[Path, str]:
    """Return every output file with the text that it should have."""
    return {FOLDER / f"{case}.out.yaml": render(case) for case in cases()}
