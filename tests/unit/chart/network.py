"""Who may reach whom, read from the NetworkPolicies of rendered manifests."""

from typing import Any

Object = dict[str, Any]


def reach(manifest: list[Object]) -> dict[str, dict[str, Any]]:
    """Return policy → pods that it is of, and what may come in and go out, one line each."""
    return {
        policy["metadata"]["name"]: {
            "pods": _labels(policy["spec"]["podSelector"]),
            "in": _direction(policy["spec"], "Ingress", "from"),
            "out": _direction(policy["spec"], "Egress", "to"),
        }
        for policy in manifest
        if policy["kind"] == "NetworkPolicy"
    }


def _direction(spec: Object, kind: str, peers: str) -> list[str]:
    """https://kubernetes.io/docs/concepts/services-networking/network-policies/"""
    if kind not in spec["policyTypes"]:
        return ["anything"]
    return [
        f"{_ports(rule)} {peers} {peer}"
        for rule in spec.get(kind.lower(), [])
        for peer in (map(_peer, rule[peers]) if peers in rule else ["anywhere"])
    ]


def _ports(rule: Object) -> str:
    ports = rule.get("ports", [])
    return " ".join(f"{p.get('protocol', 'TCP')}/{p['port']}" for p in ports) or "any port"


def _peer(peer: Object) -> str:
    places = peer.get("namespaceSelector")
    where = f"namespaces {_labels(places)}" if places else "the same namespace"
    return f"{where}, pods {_labels(peer['podSelector'])}" if "podSelector" in peer else where


def _labels(selector: Object) -> str:
    return " ".join(f"{k.rpartition('/')[2]}={v}" for k, v in selector["matchLabels"].items())
