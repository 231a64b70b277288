"""The operator that one writes first: kopf handlers per event, kopf's own settings.

The yardstick of `make bench-operator`. It makes the same children of the same templates, with
the same client, and writes a status; kopf keeps its progress in annotations, as it does by default.
It knows no autoscaler: the count is 0 and stays so.
"""

import asyncio
import os
import time
from typing import Any

import kopf

from overspill.api.names import GROUP, OPERATOR_MANAGER, VERSION
from overspill.api.service import InferenceService
from overspill.cluster import Cluster
from overspill.controller import render
from overspill.controller.facts import Facts, Scaling
from overspill.controller.observe import CHILDREN
from overspill.controller.settings import Settings

SETTINGS = Settings.from_environment(os.environ)
READY = {"type": "Ready", "status": "True", "reason": "ScaledToZero", "message": "applied"}


@kopf.on.login()
def login(**kwargs: Any) -> Any:
    """Log in as the kubeconfig says."""
    return kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def connect(memo: kopf.Memo, **_: Any) -> None:
    """Open one connection for all handlers."""
    memo.connection = Cluster.connect()
    memo.cluster = await memo.connection.__aenter__()


@kopf.on.cleanup()
async def disconnect(memo: kopf.Memo, **_: Any) -> None:
    """Close it."""
    await memo.connection.__aexit__(None, None, None)


@kopf.on.create(GROUP, VERSION, InferenceService.plural)
@kopf.on.update(GROUP, VERSION, InferenceService.plural)
async def apply(body: kopf.Body, patch: kopf.Patch, memo: kopf.Memo, **_: Any) -> None:
    """Apply the children and say so."""
    service = InferenceService.parse(dict(body))
    facts = Facts(service, children={}, pods=(), scaling=Scaling(0), server_version=(1, 35))
    children = render.children(facts, SETTINGS, replicas=0, unplaceable=0)
    for kind, obj in children.items():
        await memo.cluster.apply(CHILDREN[kind], obj, manager=OPERATOR_MANAGER)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    generation = service.metadata.generation
    condition = {**READY, "lastTransitionTime": since, "observedGeneration": generation}
    patch.status.update({"observedGeneration": generation, "conditions": [condition]})


def main() -> None:
    """Run until SIGTERM."""
    asyncio.run(kopf.operator(standalone=True, namespaces=SETTINGS.watch_namespaces))


if __name__ == "__main__":
    main()
