"""`overspill why`: where a request went, on what numbers, and what else it could have cost.

Gateways tell it on their internal port, to the operator only. So a token of the operator's service
account is made, good for ten minutes and for gateways alone, and sent through the API server's pod
proxy: who may do that could read the operator's own token anyway.
"""

import json
import re
from typing import Any

from overspill.api.names import GATEWAY_AUDIENCE, GATEWAY_INTERNAL_PORT, HEADER_TOKEN
from overspill.cli import show
from overspill.cli.errors import CLUSTER, CommandError
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster
from overspill.cluster.kinds import POD

TOKEN_SECONDS = 600  # the shortest that an API server gives
_ID = re.compile(r"[0-9a-f]{32}")
Known = dict[str, Any]


def is_request(text: str) -> bool:
    """Whether a text is a request's id, which no name of a service looks like."""
    return bool(_ID.fullmatch(text))


def request(target: Target, request_id: str, output: Output) -> None:
    """Print what the gateways remember of a request.

    :param request_id: of the answer's header ``x-overspill-request-id``.
    :raises CommandError: when no gateway remembers it, or may be asked.
    """
    known = connected(target, lambda cluster: _ask(cluster, target, request_id))
    if output is Output.JSON:
        show.as_json(known)
        return
    show.line(f"{request_id}, {known['service']}")
    for attempt in known["attempts"]:
        show.line(f"{attempt['time']}  {attempt['destination']}: {attempt['why']}")
        for choice in attempt["choices"]:
            show.line(f"    {_choice(choice)}")


def _choice(choice: Known) -> str:
    wait = choice["wait_seconds"]
    waits = "no slot in sight" if wait is None else f"wait {wait:.2f} s"
    return f"{choice['to']}: {waits}, ${choice['cost_usd']}"


async def _ask(cluster: Cluster, target: Target, request_id: str) -> Known:
    """Ask one gateway after the other.

    :raises CommandError: when none remembers it.
    """
    token = await _token(cluster, target)
    labels = f"app.kubernetes.io/instance={target.release},app.kubernetes.io/component=gateway"
    pods = (await cluster.list(POD, target.namespace, labels=labels)).items
    silent = []
    for pod in pods:
        name = pod["metadata"]["name"]
        path = POD.path(target.namespace, f"{name}:{GATEWAY_INTERNAL_PORT}", "proxy")
        status, body = await cluster.raw(
            "GET", f"{path}/why/{request_id}", headers={HEADER_TOKEN: token}
        )
        if status == 200:
            known: Known = json.loads(body)
            return known
        if status != 404:
            silent.append(f"{name} (HTTP {status})")
    if silent:
        raise CommandError(
            f"not told by {', '.join(silent)}: you need the right to get pods/proxy, and network "
            f"policies must let the API server in to port {GATEWAY_INTERNAL_PORT}",
            CLUSTER,
        )
    text = f"none of {len(pods)} gateways remembers {request_id}: each keeps its newest 10,000"
    raise CommandError(f"{text} decisions until it restarts; older ones are in its log")


async def _token(cluster: Cluster, target: Target) -> str:
    """Return a token of the operator's service account.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/

    :raises CommandError: when the user may not make one.
    """
    account = f"/api/v1/namespaces/{target.namespace}/serviceaccounts/{target.operator}"
    spec = {"audiences": [GATEWAY_AUDIENCE], "expirationSeconds": TOKEN_SECONDS}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    status, answer = await cluster.raw("POST", f"{account}/token", body=body)
    if status == 201:
        return str(json.loads(answer)["status"]["token"])
    raise CommandError(
        f"no token for {target.operator} in {target.namespace} (HTTP {status}): you need the right "
        "to create serviceaccounts/token and to get pods/proxy there",
        CLUSTER,
    )
