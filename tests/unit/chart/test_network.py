"""What the NetworkPolicies say (S14), and that an engine is reached on its own port only (S15).

Whether a cluster obeys them is for its network to show: see docs/security.md.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from network import reach
from rights import INSTALL, objects

GOLDEN = yaml.safe_load(Path(__file__).with_name("network.golden.yaml").read_text())
ENGINES = sorted((Path(__file__).parents[1] / "runtimes/golden").glob("*.out.yaml"))
Object = dict[str, Any]


def test_the_plain_install_is_the_golden_one() -> None:
    assert reach(objects(INSTALL.read_text())) == GOLDEN["plain install"]


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name.removesuffix(".out.yaml"))
def test_an_engine_is_reached_by_the_release_on_its_port_and_asks_nobody(path: Path) -> None:
    """Ports by which engines talk to each other, or are debugged, are in no policy."""
    rendered = {obj["kind"]: obj for obj in yaml.safe_load_all(path.read_text())}
    policy, pod = rendered["NetworkPolicy"]["spec"], rendered["Deployment"]["spec"]["template"]
    assert policy["podSelector"] == rendered["Deployment"]["spec"]["selector"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}

    [engine] = pod["spec"]["containers"]
    [port] = engine["ports"]
    loaders = [c for c in pod["spec"].get("initContainers", []) if c["name"] == "loader"]
    progress = [int(e["value"]) for c in loaders for e in c["env"] if e["name"] == "OVERSPILL_PORT"]
    [rule] = policy["ingress"]
    assert {p["port"] for p in rule["ports"]} == {port["containerPort"], *progress}
    # Ours by labels and namespace; scrapers by namespace alone, as the chart's values name them.
    assert all("kubernetes.io/metadata.name" in p["namespaceSelector"]["matchLabels"]
               for p in rule["from"])  # fmt: skip
    assert rule["from"][0]["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/part-of": "overspill"
    }

    ports = [f"{p['protocol']}/{p['port']}" for out in policy["egress"] for p in out["ports"]]
    assert ports[:2] == (["UDP/53", "TCP/53"] if loaders else [])
    assert len(ports) == (3 if loaders else 0)
