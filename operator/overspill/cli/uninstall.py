"""`overspill uninstall`: lists everything first, then removes what it listed.

Without --purge it does what `helm uninstall` does: the program goes; the custom resources, the
engines that serve them, the clients' keys, the record of what was spent and the definitions stay,
and a new install takes them over. With --purge they go too, unless they are another release's as
well: definitions are of the whole cluster, and with one goes every object of its kind. Of a release
that watches some namespaces only the objects there go, and a definition stays while others have
objects of it. The namespace stays in any case: it is the user's.
"""

import asyncio
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from overspill.api.names import GROUP, LABEL_KEY
from overspill.cli import show
from overspill.cli.crds import Release, owner
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

Object = dict[str, Any]

PART = "app.kubernetes.io/part-of=overspill"
OPERATORS = f"{PART},app.kubernetes.io/component=operator"
OUR_KINDS = (INFERENCE_SERVICE, INFERENCE_PROVIDER, INFERENCE_RUNTIME)
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

    :param purge: also custom resources (and with them the engines), keys, the record of what was
        spent, and definitions.
    :param dry_run: only list.
    :param yes: do not ask.
    :raises CommandError: when nothing is there, some of it serves another release, or nobody can
        be asked.
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
    """Return every object that goes, in the order of removal.

    :raises CommandError: when a purge would take another release's objects.
    """
    found = await _purged(cluster, target) if purge else []
    labels = ",".join(
        [
            PART,
            f"app.kubernetes.io/instance={target.release}",
            # The operator's own children belong to services, one of which may be named like us.
            "app.kubernetes.io/managed-by!=overspill",
        ]
    )
    own = (target.release, target.namespace)
    for kind in CHART_KINDS:
        items = await _objects(cluster, kind, labels=labels)
        mine = [_found(kind, item["metadata"]) for item in items if owner(item) in (None, own)]
        found += [item for item in mine if purge or item.name != target.ledger]
    # Last, since the operator makes a lease anew while it may; such a one can lack the labels.
    only = f"metadata.name={target.operator}"
    found += await _listed(cluster, LEASE, target.namespace, fields=only)
    history = f"owner=helm,name={target.release}"
    found += await _listed(cluster, SECRET, target.namespace, labels=history)
    if purge:
        found += await _definitions(cluster, found)
    return found


async def _purged(cluster: Cluster, target: Target) -> list[Found]:
    """Return what only a purge removes, but for the definitions.

    :raises CommandError: when it serves another release too.
    """
    operators = await _objects(cluster, DEPLOYMENT, labels=OPERATORS)
    definitions = await _objects(cluster, CRD, labels=PART)
    _refuse_others(target, [_release(o) for o in operators], [owner(d) for d in definitions])
    watched = next((_watched(o) for o in operators), [])
    found: list[Found] = []
    for kind in OUR_KINDS:
        for namespace in watched or [""]:
            found += await _listed(cluster, kind, namespace)
    found += await _listed(cluster, SECRET, target.namespace, labels=f"{LABEL_KEY}=true")
    return found


def _refuse_others(
    target: Target, operators: Iterable[Release], owners: Iterable[Release | None]
) -> None:
    own = (target.release, target.namespace)
    for release, namespace in sorted({*operators} - {own}):
        raise CommandError(
            f"release {release} in namespace {namespace} serves with the same definitions; "
            f"uninstall it first, or leave --purge out; "
            f"if it is the one you mean: --release {release} --system-namespace {namespace}"
        )
    for release, namespace in sorted({*filter(None, owners)} - {own}):
        raise CommandError(
            f"the definitions belong to release {release} in namespace {namespace}; "
            f"pass --release {release} --system-namespace {namespace}, or leave --purge out"
        )


def _release(operator: Object) -> Release:
    metadata = operator["metadata"]
    return metadata["labels"].get("app.kubernetes.io/instance", ""), metadata["namespace"]


def _watched(operator: Object) -> list[str]:
    """Return the namespaces that an operator watches, none when it watches all."""
    containers = operator["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value", "") for c in containers for e in c.get("env") or []}
    return [n for n in env.get("OVERSPILL_WATCH_NAMESPACES", "").split(",") if n]


async def _definitions(cluster: Cluster, going: list[Found]) -> list[Found]:
    """Return the definitions whose objects all go."""
    found: list[Found] = []
    for kind in OUR_KINDS:
        if {*await _listed(cluster, kind)} <= {*going}:
            only = f"metadata.name={kind.plural}.{GROUP}"
            found += await _listed(cluster, CRD, labels=PART, fields=only)
    return found


async def _listed(
    cluster: Cluster, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
) -> list[Found]:
    items = await _objects(cluster, kind, namespace, labels=labels, fields=fields)
    return [_found(kind, item["metadata"]) for item in items]


async def _objects(
    cluster: Cluster, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
) -> list[Object]:
    try:
        return (await cluster.list(kind, namespace, labels=labels, fields=fields)).items
    except NotFound:  # the definition is gone already
        return []


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
