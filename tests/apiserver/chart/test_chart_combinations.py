"""S20: the rights of each combination of values, in the chart's roles and to the API server.

In each row the rendered roles must say what follows from the golden matrix of the plain install,
the API server must find just that for our accounts in every namespace, and it must take all
objects and the pods of all deployments.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart_world import CHART, Helm, settings
from combinations import OWN, PLACES, VALUES, Values, expected, pairwise
from rights import lines, matrix

from lab.kube import Kube
from overspill.cluster import Cluster, kinds
from overspill.cluster.kinds import Kind

KINDS = {kind.kind: kind for kind in vars(kinds).values() if isinstance(kind, Kind)}
RIGHTS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
SEEN_SECONDS = 20  # until the API server goes by new roles
Object = dict[str, Any]
ROWS = list(pairwise(VALUES))


@pytest.fixture(scope="module")
def places(kubeconfig: str) -> Iterator[dict[str, str]]:
    """Namespaces by what they are to a release; the release's own admits only restricted pods."""
    kube, prefix = Kube(kubeconfig), f"test-{uuid.uuid4().hex[:8]}"
    made = {place: f"{prefix}-{place}" for place in PLACES}
    for name in made.values():
        kube.kubectl("create", "namespace", name)
    kube.kubectl("label", "namespace", made[OWN], "pod-security.kubernetes.io/enforce=restricted")
    yield made
    kube.kubectl("delete", "namespace", "--wait=false", *made.values())


def put(value: Any, places: dict[str, str]) -> Any:
    """Return values in which places have their real names."""
    if isinstance(value, dict):
        return {key: put(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [put(inner, places) for inner in value]
    return places.get(value, value) if isinstance(value, str) else value


def rendered(helm: Helm, row: Values, release: str, places: dict[str, str]) -> list[Object]:
    """Return the objects of a release with these values, but for our own kinds' definitions."""
    values = {"crds.install": False, **put(row, places)}
    text = helm("template", release, str(CHART), "-n", places[OWN], *settings(values))
    return [obj for obj in yaml.safe_load_all(text) if obj]


async def post(cluster: Cluster, obj: Object, dry: bool = False) -> None:
    """Create an object, or have the API server look at it."""
    kind = KINDS[obj["kind"]]
    path = kind.path(obj["metadata"].get("namespace", ""))
    status, answer = await cluster.raw("POST", path + "?dryRun=All" * dry, body=obj)
    assert status == 201, f"{kind.kind} {obj['metadata']['name']}: {answer.decode()}"


def pod_of(deployment: Object) -> Object:
    """Return a pod of a deployment, without what would have to be there before it."""
    template = deployment["spec"]["template"]
    metadata = {key: deployment["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], **metadata},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }


async def rules(cluster: Cluster, user: str, namespace: str) -> set[str]:
    """Return what the API server lets a service account do in a namespace."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    headers = {"Impersonate-User": f"system:serviceaccount:{user}"}
    status, answer = await cluster.raw(
        "POST", REVIEW, body={**body, "spec": {"namespace": namespace}}, headers=headers
    )
    assert status == 201, answer
    found = json.loads(answer)["status"]["resourceRules"]
    return {line for rule in found for line in lines(rule)}


async def seen(cluster: Cluster, accounts: list[str], places: dict[str, str]) -> Any:
    """Return account → place → what it may do there, beyond what every account may."""
    nobody = await rules(cluster, f"{places[OWN]}:nobody", places[OWN])
    asked = [(account, place) for account in accounts for place in (*places, "elsewhere")]
    found = await asyncio.gather(
        *(
            rules(cluster, f"{places[OWN]}:{account}", places.get(place, "kube-system"))
            for account, place in asked
        )
    )
    return {key: lines_ - nobody for key, lines_ in zip(asked, found, strict=True)}


@pytest.mark.parametrize("number", range(len(ROWS)))
async def test_rights(cluster: Cluster, helm: Helm, places: dict[str, str], number: int) -> None:
    row, release = ROWS[number], f"r{number}-{places[OWN]}"
    objects = rendered(helm, row, release, places)
    wanted = expected(row, release)
    scopes = {name: place for place, name in places.items()} | {"cluster": "cluster"}
    said = {
        account: {scopes[scope]: set(found) for scope, found in by_scope.items()}
        for account, by_scope in matrix(objects).items()
    }
    assert said == {
        account: {scope: found for scope, found in by_scope.items() if found}
        for account, by_scope in wanted.items()
    }

    known = [obj for obj in objects if obj["apiVersion"] != "monitoring.coreos.com/v1"]
    pods = [pod_of(obj) for obj in known if obj["kind"] == "Deployment"]
    await asyncio.gather(*(post(cluster, obj, dry=True) for obj in [*known, *pods]))

    roles = [obj for obj in objects if obj["kind"] in RIGHTS]
    await asyncio.gather(*(post(cluster, obj) for obj in roles))
    try:
        right = {
            (account, place): by_scope.get("cluster", set()) | by_scope.get(place, set())
            for account, by_scope in wanted.items()
            for place in (*places, "elsewhere")
        }
        async with asyncio.timeout(SEEN_SECONDS):
            while (found := await seen(cluster, list(wanted), places)) != right:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # a poll
    except TimeoutError:
        assert found == right
    finally:
        for obj in roles:
            metadata = obj["metadata"]
            await cluster.delete(
                KINDS[obj["kind"]], metadata.get("namespace", ""), metadata["name"]
            )


def test_every_two_values_meet() -> None:
    for (a, of_a), (b, of_b) in itertools.combinations(VALUES.items(), 2):
        for pair in itertools.product(of_a, of_b):
            assert pair in [(row[a], row[b]) for row in ROWS]
