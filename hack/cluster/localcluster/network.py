"""The cluster's network on this machine: three bridges and a handful of firewall rules.

The node's address and the service range sit on bridges without ports, so that nothing of the
cluster ever leaves the machine. Forwarding is switched on for the pods' bridge alone. Rules in
chains of our own drop whatever comes from outside for the cluster, and whatever pods send outside.
"""

import ipaddress
import json
import re
from pathlib import Path

from localcluster import layout
from localcluster.progress import ClusterError, run, succeeds

NETWORKS = (layout.NODE_NETWORK, layout.SERVICE_NETWORK, layout.POD_NETWORK)
LINKS = (layout.NODE_LINK, layout.SERVICE_LINK, layout.POD_LINK)
POD_LINK_ADDRESS = "02:95:97:00:00:01"  # fixed: a bridge else takes a new one with each port
POD = layout.POD_LINK

# (table, built-in chain, our chain, its rules)
CHAINS = (
    (
        "raw",
        "PREROUTING",
        "OVERSPILL-GUARD",
        [f"-i {POD} -d {network} -j RETURN" for network in NETWORKS]
        + [f"-i {POD} -j DROP", "-i lo -j RETURN"]
        + [f"-d {network} -j DROP" for network in NETWORKS],
    ),
    ("mangle", "FORWARD", "OVERSPILL-INSIDE", [f"-i {POD} ! -o {POD} -j DROP"]),
    # For machines whose own firewall drops by default.
    ("filter", "FORWARD", "OVERSPILL-PODS", [f"-i {POD} -o {POD} -j ACCEPT"]),
    ("filter", "INPUT", "OVERSPILL-NODE", [f"-i {POD} -j ACCEPT"]),
)


def overlaps(routes: list[dict[str, str]]) -> list[str]:
    """The routes of other links (as `ip -json route` gives them) that collide with ours."""
    ours = [ipaddress.ip_network(network) for network in NETWORKS]
    found = []
    for route in routes:
        if route.get("dev") in LINKS or route["dst"] == "default":
            continue
        if any(ipaddress.ip_network(route["dst"]).overlaps(network) for network in ours):
            found.append(f"{route['dst']} on {route.get('dev', '?')}")
    return found


def check() -> None:
    """Raise ClusterError when another network of this machine uses our address ranges."""
    routes = json.loads(run(["ip", "-json", "-4", "route"]) or "[]")
    if clash := overlaps(routes):
        raise ClusterError(
            f"the cluster needs {', '.join(NETWORKS)}, but this machine routes {', '.join(clash)}: "
            "remove that route, or use an existing cluster"
        )


def ensure_bridge(link: str, address: str) -> None:
    """Create a bridge with an address, without IPv6, unless it is there."""
    if not Path("/sys/class/net", link).exists():
        run(["ip", "link", "add", link, "type", "bridge"])
    setting(link, "ipv6", "disable_ipv6", "1")
    run(["ip", "address", "replace", address, "dev", link])
    run(["ip", "link", "set", link, "up"])


def setting(link: str, family: str, name: str, value: str) -> None:
    """Write a per-link kernel setting, where the kernel has that family."""
    file = Path("/proc/sys/net", family, "conf", link, name)
    if file.exists():
        file.write_text(value)


def ensure() -> None:
    """Create bridges, routes and rules; harmless when they are there."""
    ensure_bridge(layout.NODE_LINK, f"{layout.NODE_ADDRESS}/32")
    ensure_bridge(layout.SERVICE_LINK, "169.254.95.1/32")
    ensure_bridge(layout.POD_LINK, f"{layout.POD_GATEWAY}/16")
    run(["ip", "link", "set", layout.POD_LINK, "address", POD_LINK_ADDRESS])
    setting(layout.POD_LINK, "ipv4", "forwarding", "1")
    route = [layout.SERVICE_NETWORK, "dev", layout.SERVICE_LINK, "src", layout.NODE_ADDRESS]
    run(["ip", "route", "replace", *route])
    for table, parent, chain, rules in CHAINS:
        ensure_chain(table, parent, chain, rules)


def restore_input(table: str, chain: str, rules: list[str]) -> str:
    """What iptables-restore reads to set one chain, leaving all others alone."""
    lines = [f"*{table}", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), "COMMIT"]
    return "\n".join(lines) + "\n"


def ensure_chain(table: str, parent: str, chain: str, rules: list[str]) -> None:
    """Set one of our chains and the jump to it."""
    run(["iptables-restore", "-w", "--noflush"], stdin=restore_input(table, chain, rules))
    if not succeeds(["iptables", "-w", "-t", table, "-C", parent, "-j", chain]):
        run(["iptables", "-w", "-t", table, "-I", parent, "1", "-j", chain])


def remove_chain(table: str, parent: str, chain: str) -> None:
    """Remove the jump and the chain, if there."""
    while succeeds(["iptables", "-w", "-t", table, "-D", parent, "-j", chain]):
        pass
    if succeeds(["iptables", "-w", "-t", table, "-F", chain]):
        run(["iptables", "-w", "-t", table, "-X", chain])


def proxy_removal(saved: str) -> str:
    """What iptables-restore reads to remove kube-proxy's chains, from what iptables-save wrote.

    All KUBE- chains are ours: the cluster does not start beside another one's.
    """
    lines: list[str] = []
    for section in saved.split("\n*")[1:]:
        chains = re.findall(r"^:(KUBE-\S+)", section, re.MULTILINE)
        jumps = re.findall(r"^-A ((?!KUBE-).* -j KUBE-.*)$", section, re.MULTILINE)
        if chains:
            lines += [
                f"*{section.split(maxsplit=1)[0]}",
                *(f":{chain} - [0:0]" for chain in chains),
            ]
            lines += [f"-D {jump}" for jump in jumps] + [f"-X {chain}" for chain in chains]
            lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def remove_proxy_rules() -> None:
    """Remove kube-proxy's rules of both address families."""
    for family in ("iptables", "ip6tables"):
        if removal := proxy_removal("\n" + run([f"{family}-save"])):
            run([f"{family}-restore", "-w", "--noflush"], stdin=removal)


def remove() -> None:
    """Remove our rules and bridges, and nothing else."""
    remove_proxy_rules()
    for table, parent, chain, _ in CHAINS:
        remove_chain(table, parent, chain)
    for link in LINKS:
        if Path("/sys/class/net", link).exists():
            run(["ip", "link", "delete", link])
