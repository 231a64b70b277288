"""`overspill uninstall`: lists everything first, then removes what it listed.

Without --purge it does what `helm uninstall` does: the program goes; the custom resources, the
engines that serve them, the clients' keys and the definitions stay, and a new install takes them
over. With --purge they go too. The namespace stays in any case: it is the user's.
"""

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from overspill.api.names import LABEL_KEY
from overspill.cli import show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster, Conflict, NotFound
from overspill.cluster.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CRD,
    DEPLOYMENT,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    LEASE,
    NETWORK_POLICY,
    PDB,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)

GONE_SECONDS = 60.0  # for one object; a definition goes when its last object is gone

# What the chart makes, in the order in which it goes: first what acts, last what it acted with.
CHART_KINDS = (
    *(DEPLOYMENT, PDB, SERVICE, NETWORK_POLICY, CONFIG_MAP, SERVICE_ACCOUNT),
    *(ROLE_BINDING, ROLE, CLUSTER_ROLE_BINDING, CLUSTER_ROLE),
)


@dataclass(frozen=True)
class Found:
    """One object to remove."""

    kind: Kind
    namespace: str
    name: str
    uid: str

    def row(self) -> list[str]:
        """Return the cells of its line in the list."""
        where = f"{self.namespace}/" if self.namespace else ""
        return [self.kind.kind, f"{where}{self.name}"]

    def fields(self) -> dict[str, str]:
        """Return what programs read."""
        return {"kind": self.kind.kind, "namespace": self.namespace, "name": self.name}


def run(target: Target, purge: bool, dry_run: bool, yes: bool, output: Output) -> None:
    """List what goes, ask, and remove it.

    :param purge: also custom resources (and with them the engines), keys and definitions.
    :param dry_run: only list.
    :param yes: do not ask.
    :raises CommandError: when nothing is there, or nobody can be asked.
    """
    found = connected(target, lambda cluster: find(cluster, target, purge))
    if not found:
        where = f"release {target.release} in namespace {target.namespace}"
        raise CommandError(f"nothing of {where} found; see --release and --system-namespace")
    _list(found, output)
    if dry_run:
        return
    _confirm(len(found), yes)
    connected(target, lambda cluster: remove(cluster, found))
    if output is Output.TEXT:
        engines = "; engines end when their last requests are answered" if purge else ""
        show.line(f"{len(found)} objects removed{engines}")
        show.line(f"namespace {target.namespace} is left to you")


async def find(cluster: Cluster, target: Target, purge: bool) -> list[Found]:
    """Return every object that goes, in the order of removal."""
    found = await _purged(cluster, target) if purge else []
    labels = ",".join(
        [
            "app.kubernetes.io/part-of=overspill",
            f"app.kubernetes.io/instance={target.release}",
            # The operator's own children belong to services, one of which may be named like us.
            "app.kubernetes.io/managed-by!=overspill",
        ]
    )
    for kind in CHART_KINDS:
        found += await _listed(cluster, kind, "", labels=labels)
    # Last, since the operator makes a lease anew while it may; such a one can lack the labels.
    only = f"metadata.name={target.operator}"
    found += await _listed(cluster, LEASE, target.namespace, fields=only)
    history = f"owner=helm,name={target.release}"
    found += await _listed(cluster, SECRET, target.namespace, labels=history)
    if purge:
        found += await _listed(cluster, CRD, labels="app.kubernetes.io/part-of=overspill")
    return found


async def _purged(cluster: Cluster, target: Target) -> list[Found]:
    found: list[Found] = []
    for kind in (INFERENCE_SERVICE, INFERENCE_PROVIDER, INFERENCE_RUNTIME):
        found += await _listed(cluster, kind)
    found += await _listed(cluster, SECRET, target.namespace, labels=f"{LABEL_KEY}=true")
    return found


async def _listed(
    cluster: Cluster, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
) -> list[Found]:
    try:
        items = (await cluster.list(kind, namespace, labels=labels, fields=fields)).items
    except NotFound:  # the definition is gone already
        return []
    return [_found(kind, item["metadata"]) for item in items]


def _found(kind: Kind, metadata: dict[str, Any]) -> Found:
    return Found(kind, metadata.get("namespace", ""), metadata["name"], metadata["uid"])


def _list(found: list[Found], output: Output) -> None:
    if output is Output.JSON:
        show.as_json([f.fields() for f in found])
    else:
        show.table(["kind", "name"], [f.row() for f in found])


def _confirm(count: int, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("not on a terminal, so nobody can be asked: pass --yes", USAGE)
    # On stderr, since stdout is the list, which a program may read.
    sys.stderr.write(f"Remove these {count} objects? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was removed")


async def remove(cluster: Cluster, found: list[Found]) -> None:
    """Delete the objects and wait until they are gone.

    What is gone already, or was made anew meanwhile, is passed over.

    :raises CommandError: when one is still there after a minute.
    """
    for item in found:
        with suppress(NotFound, Conflict):
            await cluster.delete(item.kind, item.namespace, item.name, uid=item.uid)
    for item in found:
        try:
            await asyncio.wait_for(_gone(cluster, item), GONE_SECONDS)
        except TimeoutError as error:
            text = f"{item.kind.kind} {item.row()[1]} does not go; has it finalizers?"
            raise CommandError(text) from error


async def _gone(cluster: Cluster, item: Found) -> None:
    while True:
        try:
            there = await cluster.get(item.kind, item.namespace, item.name)
        except NotFound:
            return
        if there["metadata"]["uid"] != item.uid:
            return
        await asyncio.sleep(0.2)
